#!/usr/bin/env bash
# The building's rules: every file of src/ includes its own module and strictly lower floors, wasm/ sees only engine.h,
# and each header compiles alone.
set -uo pipefail
cd "$(dirname "$0")/.."

floors=(
    "base"
    "platform err mathf sha256 profile"
    "arena"
    "quant kernel pool unicode"
    "gguf"
    "tokenizer sampler grammar"
    "linear"
    "model"
    "session"
    "engine"
)
system="stdbool.h stddef.h stdint.h stdarg.h immintrin.h wasm_simd128.h arm_neon.h"

passed=0
failed=0
check() { # result, message
    if [ "$1" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)) && echo "$2"; fi
}

module_of() { # file name -> module: kernel_avx2.c is of kernel
    local name=${1%.*}
    echo "${name%%_*}"
}

floor_of() { # module -> number of its floor
    local i
    for i in "${!floors[@]}"; do
        [[ " ${floors[$i]} " == *" $1 "* ]] && echo "$i" && return
    done
    echo none
}

for file in src/*.[ch]; do
    name=$(basename "$file")
    own=$(module_of "$name")
    level=$(floor_of "$own")
    check "$([ "$level" != none ]; echo $?)" "$file: module '$own' stands on no floor"
    [ "$level" = none ] && continue
    while read -r included; do
        other=$(module_of "$included")
        below=$(floor_of "$other")
        [ -e "src/$included" ] && { [ "$other" = "$own" ] || { [ "$below" != none ] && [ "$below" -lt "$level" ]; }; }
        check $? "$file includes $included, which is not on a lower floor"
    done < <(sed -n 's/^ *# *include *"\([^"]*\)".*/\1/p' "$file")
    [ "$name" = platform_native.c ] && continue
    while read -r included; do
        [[ " $system " == *" $included "* ]] || { [ "$name" = base.h ] && [ "$included" = string.h ]; }
        check $? "$file includes <$included>: the engine is freestanding"
    done < <(sed -n 's/^ *# *include *<\([^>]*\)>.*/\1/p' "$file")
done

while read -r included; do
    check "$([ "$included" = engine.h ]; echo $?)" "wasm/exports.c includes $included: only engine.h is its business"
done < <(sed -n 's/^ *# *include *["<]\([^">]*\)[">].*/\1/p' wasm/*.c)

# Bodies that an ISA file includes after it has defined its vector types: they cannot stand alone.
templates="kernel_batch.h kernel_batch_choice.h kernel_lut8.h kernel_popcount.h kernel_vec.h kernel_vec_avx2.h kernel_vec_simd128.h kernel_vec_neon.h kernel_rows.h kernel_attention.h kernel_attention_avx.h"

cc=${CC:-gcc}
flags=$(pkg-config --cflags libcjson openblas 2>/dev/null)
for header in src/*.h tools/*.h tools/*/*.h tests/*.h; do
    [[ " $templates " == *" $(basename "$header") "* ]] && continue
    # shellcheck disable=SC2086
    errors=$($cc -std=c11 -D_GNU_SOURCE -DBITPAIR_ROOT='""' -Wall -Wextra -Wno-unused-function -Wno-unused-variable \
        -Wno-unused-const-variable -Werror -Isrc -Itools -Itests $flags -fsyntax-only -include "$header" -x c /dev/null 2>&1 | head -5)
    check "$([ -z "$errors" ]; echo $?)" "$header does not compile alone: $errors"
done

echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
