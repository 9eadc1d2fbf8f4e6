#!/usr/bin/env bash
# Installs what building (`setup.sh build`: the WASM engine only) or testing (`setup.sh`: everything) needs.
# Debian and its children: through apt-get, as root or with sudo. Elsewhere: names what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}

# command or pkg-config module, Debian package
needs=("cmake cmake" "ninja ninja-build" "clang-19 clang-19" "wasm-ld-19 lld-19")
if [ "$what" = all ]; then
    needs+=("gcc gcc" "pkg-config pkg-config" "pc:openblas libopenblas-dev" "pc:libcjson libcjson-dev" "h:pthread.h libc6-dev"
        "chromium chromium")
fi

present() {
    case $1 in
    pc:*) command -v pkg-config >/dev/null && pkg-config --exists "${1#pc:}" ;;
    h:*) [ -e "/usr/include/${1#h:}" ] ;;
    clang-19 | wasm-ld-19) command -v "$1" >/dev/null || command -v "${1/19/20}" >/dev/null || command -v "${1/19/21}" >/dev/null ;;
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
        echo "setup: please install these (Debian's names; clang and lld of version 19 or newer): $packages" >&2
        exit 1
    fi
    as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "setup: run as root, or install: $packages" >&2; exit 1; }
        as_root=(sudo)
    fi
    echo "setup: apt-get install $packages"
    "${as_root[@]}" apt-get update -qq
    # shellcheck disable=SC2086
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages
    still=$(missing | sort -u | tr '\n' ' ')
    [ -z "$still" ] || { echo "setup: still missing after apt-get: $still" >&2; exit 1; }
fi

# The marker that npm itself writes is newer than the lock file when node_modules fits it.
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    npm ci --no-audit --no-fund --loglevel=error
fi
