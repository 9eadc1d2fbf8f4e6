# clang for AArch64 with Debian's C library for it, programs that stand alone and run under qemu. The preset `neon` names
# this file.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)

find_program(BITPAIR_CLANG NAMES clang-19 clang-20 clang-21 clang REQUIRED)
find_program(BITPAIR_QEMU NAMES qemu-aarch64 qemu-aarch64-static REQUIRED)
set(CMAKE_C_COMPILER ${BITPAIR_CLANG})
set(CMAKE_C_COMPILER_TARGET aarch64-linux-gnu)
set(CMAKE_EXE_LINKER_FLAGS_INIT "-static -fuse-ld=lld")
set(CMAKE_CROSSCOMPILING_EMULATOR ${BITPAIR_QEMU})
