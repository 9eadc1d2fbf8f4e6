# Two binaries of the same sources, written into web/:
#   bitpair.wasm          owns its memory; runs wherever SIMD128 does
#   bitpair-threads.wasm  shared memory that the host supplies; one instance per worker
# exports.txt is the whole surface that JavaScript sees.

# Hosted, not -ffreestanding: memcpy of a constant size must become a load.
add_compile_options(-msimd128 -mbulk-memory -mnontrapping-fptoint -mmutable-globals -nostdlibinc -fvisibility=hidden)

set(WASM_SOURCES ${ENGINE_SOURCES} src/kernel_simd128.c src/kernel_attention_simd128.c src/platform_wasm.c wasm/exports.c)
# This file defines memcpy and its like: the compiler must not turn their bodies into calls of themselves.
set_source_files_properties(src/platform_wasm.c PROPERTIES COMPILE_OPTIONS "-fno-builtin")

# What runs once per model, call or token is built for size: the page downloads it, and its time is in the kernels.
set_source_files_properties(src/err.c src/gguf.c src/model.c src/sampler.c src/session.c src/session_attention.c src/session_state.c src/kernel_attention_ref.c src/engine.c src/engine_state.c src/engine_inside.c
  src/tokenizer_open.c src/tokenizer.c src/tokenizer_pre.c src/tokenizer_nfc.c src/tokenizer_bpe.c src/grammar.c src/grammar_parse.c src/grammar_compile.c src/grammar_vocabulary.c src/engine_grammar.c PROPERTIES COMPILE_OPTIONS "-Os")

file(STRINGS wasm/exports.txt lines REGEX "^[a-z_]")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS wasm/exports.txt)
# The stack comes first, so that overflowing it traps instead of overwriting data.
set(link "--no-entry --gc-sections --strip-all --stack-first -z stack-size=1048576 --export=__stack_pointer")
foreach(line ${lines})
  string(REGEX MATCH "^[a-z0-9_]+" name ${line})
  string(APPEND link " --export=${name}")
endforeach()

function(add_wasm name)
  add_executable(${name} ${WASM_SOURCES})
  target_include_directories(${name} PRIVATE src)
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/web LINK_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/wasm/exports.txt)
endfunction()

add_wasm(bitpair)
set_target_properties(bitpair PROPERTIES LINK_FLAGS "${link} --max-memory=4294967296")

add_wasm(bitpair-threads)
target_compile_options(bitpair-threads PRIVATE -matomics)
# Shared memory makes data segments passive: the first instance copies them, the others find them in place.
set_target_properties(bitpair-threads PROPERTIES
  LINK_FLAGS "${link} --import-memory --shared-memory --max-memory=4294967296")
