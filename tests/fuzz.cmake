# One libFuzzer program per tests/fuzz_*.c: the engine and the parsers of the tool under ASan and UBSan, as they are.
find_package(PkgConfig REQUIRED)
pkg_check_modules(CJSON REQUIRED IMPORTED_TARGET libcjson)
file(GLOB PARSERS CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/tools/io/*.c)
add_library(parsers STATIC ${PARSERS} tools/chat_template.c tools/text.c)
target_include_directories(parsers PUBLIC tools)
target_compile_definitions(parsers PUBLIC _GNU_SOURCE)
target_link_libraries(parsers PUBLIC engine PkgConfig::CJSON m)

file(GLOB FUZZERS CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/tests/fuzz_*.c)
foreach(source ${FUZZERS})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_include_directories(${name} PRIVATE tests)
  target_link_libraries(${name} PRIVATE parsers)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
endforeach()

# What is no parser but takes most of the time: without counters of coverage.
set_source_files_properties(src/sha256.c src/kernel_ref.c src/kernel_avx2.c src/kernel_avx512.c src/kernel_neon.c src/mathf.c src/quant.c src/session_forward.c src/linear.c
  PROPERTIES COMPILE_OPTIONS "-fno-sanitize-coverage=edge,inline-8bit-counters,indirect-calls,trace-cmp,pc-table")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set_property(SOURCE src/kernel_avx2.c APPEND PROPERTY COMPILE_OPTIONS "-mavx2;-mf16c")
  set_property(SOURCE src/kernel_avx512.c APPEND PROPERTY COMPILE_OPTIONS "-mavx512f;-mavx512bw;-mavx512vl;-mavx512vbmi;-mavx512vnni;-mavx512bitalg")
endif()
