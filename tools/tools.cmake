# The `bitpair` command: a library of everything below main.c (tests link it too), and the program.
find_package(PkgConfig REQUIRED)
pkg_check_modules(CJSON REQUIRED IMPORTED_TARGET libcjson)
pkg_check_modules(OPENBLAS REQUIRED IMPORTED_TARGET openblas)

file(GLOB TOOL_SOURCES CONFIGURE_DEPENDS
  ${CMAKE_CURRENT_SOURCE_DIR}/tools/*.c
  ${CMAKE_CURRENT_SOURCE_DIR}/tools/io/*.c
  ${CMAKE_CURRENT_SOURCE_DIR}/tools/linalg/*.c
  ${CMAKE_CURRENT_SOURCE_DIR}/tools/compress/*.c
  ${CMAKE_CURRENT_SOURCE_DIR}/tools/tune/*.c
  ${CMAKE_CURRENT_SOURCE_DIR}/tools/eval/*.c)
list(FILTER TOOL_SOURCES EXCLUDE REGEX "/main\\.c$")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set_source_files_properties(tools/linalg/gemm_bf16_avx512.c PROPERTIES
    COMPILE_OPTIONS "-mavx512f;-mavx512bw;-mavx512vl;-mavx512bf16")
  set_source_files_properties(tools/linalg/gemm_bf16_amx.c PROPERTIES
    COMPILE_OPTIONS "-mavx512f;-mavx512bw;-mavx512vl;-mavx512bf16;-mamx-tile;-mamx-bf16")
  set_source_files_properties(tools/linalg/gemm_int16_avx2.c PROPERTIES COMPILE_OPTIONS "-mavx2")
  set_source_files_properties(tools/linalg/gemm_integer_avx512.c tools/linalg/gemm_int8_avx512.c PROPERTIES
    COMPILE_OPTIONS "-mavx512f;-mavx512vnni")
endif()
# reductions and exponentials of training as vector code; fused multiply-add is welcome there
# (clang says of some loops that it does not make them vector code)
set_source_files_properties(tools/tune/vector.c PROPERTIES
  COMPILE_OPTIONS "-fopenmp-simd;-ffp-contract=fast;-fno-trapping-math;$<$<C_COMPILER_ID:Clang,AppleClang>:-Wno-pass-failed>")
add_library(tools STATIC ${TOOL_SOURCES})
target_include_directories(tools PUBLIC tools)
target_compile_definitions(tools PUBLIC _GNU_SOURCE BITPAIR_VERSION="${PROJECT_VERSION}")
target_link_libraries(tools PUBLIC engine PkgConfig::CJSON PkgConfig::OPENBLAS m)

add_executable(bitpair tools/main.c)
target_link_libraries(bitpair PRIVATE tools)
