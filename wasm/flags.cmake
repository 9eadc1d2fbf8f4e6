# Four binaries of the same sources, written into web/; a page downloads one:
#   bitpair.wasm          owns its memory; runs wherever SIMD128 does
#   bitpair-threads.wasm  shared memory that the host supplies; one instance per worker
#   *-relaxed.wasm        the same with two instructions of relaxed SIMD, for hosts that have it
# exports.txt is the whole surface that JavaScript sees.

# Hosted, not -ffreestanding: memcpy of a constant size must become a load.
add_compile_options(-msimd128 -mbulk-memory -mnontrapping-fptoint -mmutable-globals -nostdlibinc -fvisibility=hidden)

# The kernels are compiled once per binary, everything else once with and once without threads.
set(KERNEL_SOURCES src/kernel.c src/kernel_simd128.c)
set(COMMON_SOURCES ${ENGINE_SOURCES} src/kernel_attention_simd128.c src/platform_wasm.c wasm/exports.c)
list(REMOVE_ITEM COMMON_SOURCES src/kernel.c)
# This file defines memcpy and its like: the compiler must not turn their bodies into calls of themselves.
set_source_files_properties(src/platform_wasm.c PROPERTIES COMPILE_OPTIONS "-fno-builtin")

# What runs once per model, call or token is built for size: the page downloads it, and its time is in the kernels.
set_source_files_properties(src/err.c src/gguf.c src/model.c src/model_load.c src/sampler.c src/session.c src/session_attention.c src/session_state.c src/kernel_ref.c src/kernel_attention_ref.c src/kernel_warm.c src/engine.c src/engine_state.c src/engine_inside.c
  src/tokenizer_open.c src/tokenizer_table.c src/tokenizer.c src/tokenizer_pre.c src/tokenizer_nfc.c src/tokenizer_bpe.c src/unicode.c src/grammar.c src/grammar_parse.c src/grammar_compile.c src/grammar_vocabulary.c src/engine_grammar.c src/quant.c PROPERTIES COMPILE_OPTIONS "-Os")

file(STRINGS wasm/exports.txt lines REGEX "^[a-z_]")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS wasm/exports.txt)
# The stack comes first, so that overflowing it traps instead of overwriting data.
set(link "--no-entry --gc-sections --strip-all --stack-first -z stack-size=1048576 --export=__stack_pointer")
foreach(line ${lines})
  string(REGEX MATCH "^[a-z0-9_]+" name ${line})
  string(APPEND link " --export=${name}")
endforeach()

set(link_single "--max-memory=4294967296")
# Shared memory makes data segments passive: the first instance copies them, the others find them in place.
set(link_threads "--import-memory --shared-memory --max-memory=4294967296")
set(compile_threads -matomics)

function(add_wasm name kind)
  add_executable(${name} ${KERNEL_SOURCES} $<TARGET_OBJECTS:common-${kind}>)
  target_include_directories(${name} PRIVATE src)
  target_compile_options(${name} PRIVATE ${compile_${kind}} ${ARGN})
  set_target_properties(${name} PROPERTIES LINK_FLAGS "${link} ${link_${kind}}"
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/web LINK_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/wasm/exports.txt)
endfunction()

foreach(kind single threads)
  add_library(common-${kind} OBJECT ${COMMON_SOURCES})
  target_include_directories(common-${kind} PRIVATE src)
  target_compile_options(common-${kind} PRIVATE ${compile_${kind}})
endforeach()
add_wasm(bitpair single)
add_wasm(bitpair-relaxed single -mrelaxed-simd)
add_wasm(bitpair-threads threads)
add_wasm(bitpair-threads-relaxed threads -mrelaxed-simd)
