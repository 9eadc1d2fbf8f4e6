# One program per tests/check_*.c; each links the engine and the tool's libraries and is a ctest case.
file(GLOB CHECKS CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/tests/check_*.c)

# For another processor: what needs no BLAS and no JSON, run by the emulator that the toolchain file names.
if(CMAKE_CROSSCOMPILING)
  list(FILTER CHECKS INCLUDE REGEX "check_(base|engine_errors|gguf|golden_hash|grammar|kernels|mathf|model|quant|tokenizer|tokenizer_hostile)\\.c$")
  add_library(tools STATIC tools/io/file.c tools/io/gguf_write.c)
  target_include_directories(tools PUBLIC tools)
  target_compile_definitions(tools PUBLIC _GNU_SOURCE)
  target_link_libraries(tools PUBLIC engine m)
endif()

foreach(source ${CHECKS})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_include_directories(${name} PRIVATE tests)
  target_link_libraries(${name} PRIVATE tools engine)
  target_compile_definitions(${name} PRIVATE BITPAIR_ROOT="${CMAKE_CURRENT_SOURCE_DIR}")
  set(only)
  if(CMAKE_CROSSCOMPILING AND name STREQUAL check_golden_hash)
    set(only neon) # emulation is slow, and check_kernels holds the scalar kernels to their hashes
  endif()
  add_test(NAME ${name} COMMAND ${name} ${only})
endforeach()

# The longest first, so that no core is idle at the end.
if(TARGET check_tune)
  set_tests_properties(check_tune check_compress check_session check_eval check_compress_memory PROPERTIES COST 60)
  set_tests_properties(check_tune PROPERTIES COST 200)
endif()

# check_faults refuses what the system gives: the linker leads these calls through it.
if(TARGET check_faults)
  foreach(call malloc calloc realloc aligned_alloc posix_memalign strdup strndup pwrite fsync mkdir)
    target_link_options(check_faults PRIVATE "LINKER:--wrap=${call}")
  endforeach()
endif()
