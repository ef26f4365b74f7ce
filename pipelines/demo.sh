#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The whole line on the embedded model (tests/data/embedded), which needs no download: calibration text that the model
# writes itself, statistics, GPTQ, norms tweaked block by block, then through the whole model, and the four of them on
# held-out text. Ends with a table, and plots of drift by layer and of the loss (terminal, and drift.svg).
#   MODEL=DIR BITS=2 GROUP=128 SEED=1   what is quantized, and how
# Leaves everything in build/demo. Exits 1 unless along the table KL to the float model falls by LESS or more at each step
# (default 5 %), perplexity falls and top-1 rises.
set -euo pipefail
O=${O:-build}
here=$(dirname "$0")
export PATH=$PWD/$O/bin:$PWD/$O/tests/data/embedded:$PATH
dir=$O/demo
model=${MODEL:-tests/data/embedded} bits=${BITS:-2} group=${GROUP:-128} seed=${SEED:-1}
mkdir -p "$dir"
say() { printf '\n== %s\n' "$*" >&2; }

say "calibration: the model's own text, 64 x 256 tokens; evaluation: 58 x 256 tokens of stories it never saw"
nt-gen-calib -m "$model" -n 64 -T 256 --seed "$seed" -o "$dir/calib.nts"
story -s 3 -n 90000 >"$dir/eval.txt"
nt-gen-calib -m "$model" --scheme text --text "$dir/eval.txt" -n 64 -T 256 --holdout 0.9 -o "$dir/eval.nts"

say "collect and quantize: GPTQ, $bits bits, groups of $group"
nt-collect -m "$model" "$dir/calib.nts" | nt-quant -m "$model" -q gptq -b "$bits" -g "$group" -o "$dir/gptq.nts"

say "tweak the norms block by block"
nt-tweak -m "$model" --tokens "$dir/calib.nts" --loss nmse --iters 4 --report "$dir/blocks.tsv" "$dir/gptq.nts" -o "$dir/gptq+nt.nts"

say "tweak them through the whole model"
nt-tweak -m "$model" --tokens "$dir/calib.nts" --scope model --final-norm --batch 8 --steps 60 --lr 3e-3 --eval-every 10 \
    --report "$dir/model.tsv" "$dir/gptq+nt.nts" -o "$dir/gptq+nt-model.nts"

say "evaluate"
eval_one() { nt-eval -m "$model" --tokens "$dir/eval.nts" --label "$@"; }
eval_one float >"$dir/table.tsv"
for q in gptq gptq+nt gptq+nt-model; do
    eval_one "$q" --qweights "$dir/$q.nts" --ref "$model" | tail -n +2 >>"$dir/table.tsv"
done

# drift.tsv: a line a layer, a column a model
awk -F '\t' '$2 == "drift_mean" { if (!($4 in seen)) { seen[$4] = 1; layer[++n] = $4 } v[$4, $1] = $5 }
    END { print "layer\tgptq\tgptq+nt\tgptq+nt-model"
          for (i = 1; i <= n; i++) print layer[i] "\t" v[layer[i], "gptq"] "\t" v[layer[i], "gptq+nt"] "\t" v[layer[i], "gptq+nt-model"] }' \
    "$dir/table.tsv" >"$dir/drift.tsv"
if command -v gnuplot >/dev/null; then
    gnuplot -e "dir='$dir'" "$here/demo.gp"
else
    say "no gnuplot: no plots"
fi

# One line a model: what people compare.
awk -F '\t' -v less="${LESS:-0.05}" 'NR > 1 && $4 == "" { if (!($1 in bits)) order[++n] = $1; bits[$1] = $8; v[$1, $2] = $5 }
    END { printf "%-14s %6s %11s %9s %7s\n", "model", "bits", "perplexity", "KL", "top-1"
          for (i = 1; i <= n; i++) { m = order[i]; if (i == 1) { v[m, "kl"] = 0; v[m, "top1"] = 1 }
              printf "%-14s %6.3f %11.4f %9.5f %7.4f\n", m, bits[m], v[m, "ppl"], v[m, "kl"], v[m, "top1"]
              if (i > 2 && !(v[m, "kl"] < (1 - less) * v[was, "kl"] && v[m, "ppl"] < v[was, "ppl"] &&
                             v[m, "top1"] > v[was, "top1"])) bad = m
              was = m }
          if (bad != "") print bad " is not clearly better than the model before it" >"/dev/stderr"
          exit bad != "" || n != 4 }' "$dir/table.tsv"
