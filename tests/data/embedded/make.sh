#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the embedded model again, from nothing: text by story.c, tokenizer by tokenizer.py (needs the Python package
# tokenizers), random weights by init/config.json, training by nt-tweak. Run in the repository root after `make` and
# `make build/tests/data/embedded/story`. Leaves tokenizer.json, config.json and model.safetensors (f16) in DIR/model.
# Two minutes on two idle cores; killed, it goes on from its checkpoint. Usage: make.sh DIR
set -euo pipefail
O=${O:-build}
export PATH=$PWD/$O/bin:$PWD/$O/tests/data/embedded:$PATH
here=tests/data/embedded dir=$1
mkdir -p "$dir/init"
cp $here/init/config.json "$dir/init"
[ -s "$dir/text" ] || story -v -s 1 -n 18000000 >"$dir/text"
[ -s "$dir/init/tokenizer.json" ] || { head -c 2000000 "$dir/text" >"$dir/head"
    "${PYTHON:-python3}" $here/tokenizer.py "$dir/head" "$dir/init/tokenizer.json"; }
[ -s "$dir/train.nts" ] ||
    nt-gen-calib -m "$dir/init" --scheme text --text "$dir/text" -n 14000 -T 256 --holdout 0.001 -o "$dir/train.nts"
[ -s "$dir/trained.nts" ] ||
    nt-tweak -m "$dir/init" --tokens "$dir/train.nts" --scope model --params all --loss ce --lr 4e-3 --warmup 40 \
        --batch 4 --steps 900 --eval-every 250 --seed 1 --precision bf16 \
        --checkpoint "$dir/state.nts" --checkpoint-every 100 --report "$dir/train.tsv" -o "$dir/trained.nts"
rm -rf "$dir/model"
nt-pack -m "$dir/init" "$dir/trained.nts" --format hf --dtype f16 -o "$dir/model"
