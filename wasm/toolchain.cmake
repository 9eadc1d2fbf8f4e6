# clang for wasm32, without Emscripten or a C library: the engine needs neither. The preset `wasm` names this file.
set(CMAKE_SYSTEM_NAME WASM)
set(CMAKE_SYSTEM_PROCESSOR wasm32)
list(APPEND CMAKE_MODULE_PATH ${CMAKE_CURRENT_LIST_DIR}) # Platform/WASM.cmake

find_program(BITPAIR_CLANG NAMES clang-19 clang-20 clang-21 clang REQUIRED)
find_program(BITPAIR_WASM_LD NAMES wasm-ld-19 wasm-ld-20 wasm-ld-21 wasm-ld REQUIRED)
set(CMAKE_C_COMPILER ${BITPAIR_CLANG})
set(CMAKE_C_COMPILER_TARGET wasm32)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_C_STANDARD_INCLUDE_DIRECTORIES "")
