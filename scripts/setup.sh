#!/usr/bin/env bash
# Installs what building (`setup.sh build`: the WASM engine; `setup.sh native`: the bitpair command) or testing (`setup.sh`: everything) needs.
# Debian and its children: through apt-get, as root or with sudo. Elsewhere: names what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}
case $what in all | build | native) ;; *) echo "setup: build, native or nothing, not '$what'" >&2; exit 2 ;; esac

# The package runs on Node 20.16 and on 22.3 and newer; bundlers that its tests use need 20.19.
node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' ||
    { echo "setup: Node $(node --version) is too old: 20.19 or newer is needed here" >&2; exit 1; }

# The first of clang's packages that the archive knows; 19 where nobody can tell.
clang_version() {
    local version
    for version in 19 20 21; do
        if apt-cache show "clang-$version" "lld-$version" >/dev/null 2>&1; then echo "$version" && return; fi
    done
    echo 19
}

# The first of Debian's versions of libgcc for AArch64 that the archive knows; 12 where nobody can tell.
libgcc_version() {
    local version
    for version in 12 13 14 15 16; do
        if apt-cache show "libgcc-$version-dev-arm64-cross" >/dev/null 2>&1; then echo "$version" && return; fi
    done
    echo 12
}

# what must be there (a command, pc: a pkg-config module, h: a header), and Debian's package for it
needs=("cmake cmake" "ninja ninja-build")
[ "$what" = native ] || needs+=("clang clang-VERSION" "wasm-ld lld-VERSION")
[ "$what" = build ] ||
    needs+=("gcc gcc" "pkg-config pkg-config" "pc:openblas libopenblas-dev" "pc:libcjson libcjson-dev" "h:pthread.h libc6-dev")
if [ "$what" = all ]; then
    needs+=("chromium chromium" "firefox firefox-esr" "WebKitWebDriver webkit2gtk-driver" "Xvfb xvfb" "fuzzer libclang-rt-VERSION-dev")
    # The NEON kernels, where this machine cannot run them itself: a C library for AArch64, and an emulator.
    case $(uname -m) in
    aarch64 | arm64) ;;
    *) needs+=("qemu-aarch64 qemu-user" "arm64:libc libc6-dev-arm64-cross" "arm64:libgcc libgcc-GCC-dev-arm64-cross") ;;
    esac
fi

present() {
    case $1 in
    pc:*) command -v pkg-config >/dev/null && pkg-config --exists "${1#pc:}" ;;
    h:*) [ -e "/usr/include/${1#h:}" ] ;;
    clang | wasm-ld) # the names that wasm/toolchain.cmake looks for; clang 14 is slower and not tested
        command -v "$1-19" >/dev/null || command -v "$1-20" >/dev/null || command -v "$1-21" >/dev/null ;;
    fuzzer) compgen -G "/usr/lib/llvm-*/lib/clang/*/lib/*/libclang_rt.fuzzer*.a" >/dev/null ;;
    qemu-aarch64) command -v qemu-aarch64 >/dev/null || command -v qemu-aarch64-static >/dev/null ;;
    arm64:libc) [ -e /usr/aarch64-linux-gnu/lib/libc.a ] ;;
    arm64:libgcc) compgen -G "/usr/lib/gcc-cross/aarch64-linux-gnu/*/libgcc.a" >/dev/null ;;
    chromium) [ -e "${CHROMIUM:-/usr/bin/chromium}" ] ;;
    firefox) [ -e "${FIREFOX:-/usr/bin/firefox-esr}" ] ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

missing() {
    local need
    for need in "${needs[@]}"; do present "${need% *}" || echo "${need#* }"; done
}

packages=$(missing | sort -u | tr '\n' ' ')
if [ -n "$packages" ]; then
    if ! command -v apt-get >/dev/null; then
        echo "setup: please install these (Debian's names; VERSION is 19, 20 or 21, GCC is 12 or more): $packages" >&2
        exit 1
    fi
    as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "setup: run as root, or install: $packages" >&2; exit 1; }
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -qq || echo "setup: apt-get update failed, going on with the lists at hand" >&2
    packages=${packages//VERSION/$(clang_version)}
    packages=${packages//GCC/$(libgcc_version)}
    echo "setup: apt-get install $packages"
    # shellcheck disable=SC2086
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages || true
    still=$(missing | sort -u | tr '\n' ' ')
    [ -z "$still" ] || { echo "setup: still missing after apt-get: $still" >&2; exit 1; }
fi

# The marker that npm itself writes is newer than the lock file when node_modules fits it.
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    npm ci --no-audit --no-fund --loglevel=error
fi
