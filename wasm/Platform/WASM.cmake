# How CMake links for the system "WASM": objects straight to wasm-ld. The clang driver would run a wasm-opt that it
# happens to find, which may not know the opcodes used here.
set(CMAKE_EXECUTABLE_SUFFIX ".wasm")
set(CMAKE_C_LINK_EXECUTABLE "${BITPAIR_WASM_LD} <LINK_FLAGS> <OBJECTS> -o <TARGET> <LINK_LIBRARIES>")
