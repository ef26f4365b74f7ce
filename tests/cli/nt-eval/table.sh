# SPDX-License-Identifier: Apache-2.0
# The table against PyTorch in float64 (tests/data/model/make.py): both protocols with BOS and CR LF, KL, top-1, drift, last words.
. tests/cli/nt-eval/lib.bash
B=$D/bytes R=$D/bytes-ref

ev -m $B --ref $R --ppl $B/text.txt --lambada $B/words.jsonl --label x >"$tmp/gptq-2048" 2>"$tmp/err"
ok $? "gptq-2048 runs"
ev -m $B --ref $R --ppl $B/text.txt --protocol llama.cpp-512 --json >"$tmp/llama.cpp-512"
ok $? "llama.cpp-512 runs"
"$PYTHON" tests/cli/nt-eval/table.py $B/expected.json "$tmp/gptq-2048" "$tmp/llama.cpp-512" >"$tmp/out" 2>&1; rc=$?
ok $rc "every value and standard error is PyTorch's"
sed 's/^/# /' "$tmp/out"

[ "$(head -n 1 "$tmp/gptq-2048")" = "$(printf 'model\tmetric\tprotocol\tlayer\tvalue\tstderr\tn\tbits\tseconds')" ]
ok $? "header line"
[ "$(tail -n +2 "$tmp/gptq-2048" | cut -f 1 | sort -u)" = x ]; ok $? "--label fills the model column"
[ -z "$(grep -v '^nt-eval: ' "$tmp/err")" ]; ok $? "nothing else on stderr"
ev -m $B --ref $R --ppl $B/text.txt --no-drift -o "$tmp/file.tsv" && ! grep -q drift "$tmp/file.tsv" && grep -q kl "$tmp/file.tsv"
ok $? "-o FILE, --no-drift"

ev -m $B --ppl $B/text.txt --windows 1 | cut -f 2,5,6,7 >"$tmp/w0"
ev -m $B --ppl $B/text.txt --windows 1:2 | cut -f 2,5,6,7 >"$tmp/w1"
[ "$(tail -n 1 "$tmp/w0" | cut -f 4)" = 2047 ] && [ -z "$(tail -n 1 "$tmp/w0" | cut -f 3)" ] && ! cmp -s "$tmp/w0" "$tmp/w1"
ok $? "--windows N and A:B; no standard error of one window"
ppl=$(awk -F'\t' '$2 == "ppl" { print $5 }' "$tmp/gptq-2048")
awk -v a="$(tail -n 1 "$tmp/w0" | cut -f 2)" -v b="$(tail -n 1 "$tmp/w1" | cut -f 2)" -v p="$ppl" \
    'BEGIN { g = sqrt(a * b); exit !(g / p > 0.9999 && g / p < 1.0001) }'
ok $? "two windows give the geometric mean of each alone"

ev -m $B --ppl $B/text.txt --ref $R -j 1 | cut -f 1-8 >"$tmp/j1"
ev -m $B --ppl $B/text.txt --ref $R -j 3 | cut -f 1-8 >"$tmp/j3"
cmp -s "$tmp/j1" "$tmp/j3"; ok $? "the same for any number of threads"
ev -m $B --ref $B --ppl $B/text.txt --windows 1 | awk -F'\t' '$2 == "kl" && $5 > 1e-6 { bad = 1 } $2 == "top1" && $5 != 1 { bad = 1 }
    $2 ~ /^drift/ && $5 != 0 { bad = 1 } END { exit bad }'
ok $? "a model does not differ from itself"
finish
