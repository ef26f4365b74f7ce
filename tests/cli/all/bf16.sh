# SPDX-License-Identifier: Apache-2.0
# --precision bf16 through every stage on tiny models: the default stays f32, streams and tables say what they were made
# with, results differ a little and not more, threads change nothing; where it cannot be had, one sentence and exit 71.
. tests/tap.bash
need_python
M=tests/data/collect/tiny B=tests/data/model/bytes
b=(--precision bf16)
py() { "$PYTHON" tests/cli/all/bf16.py "$@" 2>"$tmp/stderr"; }
within() { awk -v x="$1" -v lo="$2" -v hi="$3" 'BEGIN { exit !(x != "" && x + 0 > lo && x + 0 <= hi) }'; }
ev() { nt-eval --progress none -m $B --ppl $B/text.txt "$@"; }

ev "${b[@]}" >"$tmp/bf16.tsv" 2>"$tmp/stderr"; rc=$?
if [ $rc = 71 ]; then
    [ "$(wc -l <"$tmp/stderr")" = 1 ] && grep -q 'precision bf16.*--precision f32' "$tmp/stderr"
    ok $? "not there: exit 71, one sentence ($(cat "$tmp/stderr"))"
    skip_all "no bf16 here: built without oneDNN, or not for this CPU"
fi
ok $rc "nt-eval runs"
ev >"$tmp/f32.tsv" 2>/dev/null
ppl() { awk -F '\t' '$2 == "ppl" { print $5 }' "$1"; }
# each input of a product is off by at most 2^-9 of itself; the logits of this random model are large (perplexity above 200)
within "$(awk -v a="$(ppl "$tmp/f32.tsv")" -v b="$(ppl "$tmp/bf16.tsv")" 'BEGIN { d = a / b - 1; print d < 0 ? -d : d }')" 0 0.05
ok $? "perplexity differs, by less than 5 %: $(ppl "$tmp/f32.tsv") and $(ppl "$tmp/bf16.tsv")"
[ "$(tail -n 1 "$tmp/f32.tsv" | cut -f 3)" = gptq-2048 ] && [ "$(tail -n 1 "$tmp/bf16.tsv" | cut -f 3)" = gptq-2048+bf16 ]
ok $? "the table says it: gptq-2048+bf16"
ev "${b[@]}" --json 2>/dev/null | grep -q '"protocol": "gptq-2048+bf16"'; ok $? "and so does --json"
ev -j 1 "${b[@]}" 2>/dev/null | cut -f 1-8 >"$tmp/j1"; ev -j 3 "${b[@]}" 2>/dev/null | cut -f 1-8 | cmp -s "$tmp/j1" -
ok $? "nt-eval: the same for any number of threads"
echo '[[1, 5, 9, 2, 33, 7], [4, 4, 8, 60, 1, 3]]' >"$tmp/ids"
for p in f32 bf16; do nt-eval --progress none -m tests/data/model/llama3 --ids "$tmp/ids" --dump logits,norm-grads -o "$tmp/$p.st" --precision $p; done
within "$(py dump "$tmp/f32.st" "$tmp/bf16.st")" 0 0.03
ok $? "logits differ by $(py dump "$tmp/f32.st" "$tmp/bf16.st") of the largest, at most 3 %"

"$PYTHON" tests/cli/nt-collect/tokens.py tests/data/collect/ids.json 2 "$tmp/c.nts"
collect() { nt-collect --progress none -m $M --tokens "$tmp/c.nts" --want hessian,sums,absmax "$@"; }
collect -o "$tmp/f.nts" && collect "${b[@]}" -j 1 -o "$tmp/s.nts" && collect "${b[@]}" -j 3 -o "$tmp/s3.nts"
ok $? "nt-collect runs"
cmp -s "$tmp/s.nts" "$tmp/s3.nts"; ok $? "nt-collect: the same bytes for any number of threads"
[ "$(py says "$tmp/f.nts" params precision)$(py says "$tmp/s.nts" params precision)" = 'null"bf16"' ]; ok $? "its header says it"
py stats "$tmp/f.nts" "$tmp/s.nts" >"$tmp/cmp"; rc=$?
[ $rc = 0 ] && grep -q same "$tmp/cmp"; ok $? "statistics stay f32: of the first inputs, before any product, they are the same bytes"
within "$(tail -n 1 "$tmp/cmp")" 0 0.03; ok $? "and the other Hessians within 3 %: $(tail -n 1 "$tmp/cmp")"

quant() { nt-quant -m $M -b 3 -g 16 "$@"; }
quant -q gptq "$tmp/s.nts" -o "$tmp/q.nts" 2>/dev/null && [ "$(py says "$tmp/q.nts" params stats_precision)" = '"bf16"' ]
ok $? "nt-quant: the header says what the statistics were made with"
quant -q gptq "${b[@]}" "$tmp/s.nts" -o "$tmp/q2.nts" 2>"$tmp/stderr" && cmp -s "$tmp/q.nts" "$tmp/q2.nts" &&
    grep -q 'changes nothing' "$tmp/stderr"
ok $? "nt-quant --precision bf16 changes nothing, and says so"
quant -q gptq "$tmp/f.nts" -o "$tmp/q.nts" 2>/dev/null && [ "$(py says "$tmp/q.nts" params stats_precision)" = null ]
ok $? "of f32 statistics the header says nothing"

quant -q rtn -o "$tmp/q.nts" 2>/dev/null
tweak() { nt-tweak --progress none -m $M --tokens "$tmp/c.nts" "$tmp/q.nts" "$@"; }
for scope in block model; do
    x=(--scope $scope); [ $scope = block ] || x+=(--seq 8 --lr 0.01 --steps 10 --params norms+scales --checkpoint "$tmp/state")
    tweak "${x[@]}" -o "$tmp/t.nts" 2>/dev/null; rm -f "$tmp/state"
    tweak "${x[@]}" "${b[@]}" -j 1 -o "$tmp/t1.nts" 2>/dev/null && [ "$(py says "$tmp/t1.nts" params tweak precision)" = '"bf16"' ] &&
        [ "$(py says "$tmp/t.nts" params tweak precision)" = null ]
    ok $? "nt-tweak, $scope scope: runs, the header says it"
    if [ $scope = model ]; then
        tweak "${x[@]}" -o "$tmp/t3.nts" 2>"$tmp/stderr"
        [ $? = 65 ] && grep -q bf16 "$tmp/stderr"; ok $? "a checkpoint made at bf16 does not go on in f32: $(cat "$tmp/stderr")"
    fi
    rm -f "$tmp/state"
    tweak "${x[@]}" "${b[@]}" -j 3 -o "$tmp/t3.nts" 2>/dev/null; cmp -s "$tmp/t1.nts" "$tmp/t3.nts"
    ok $? "$scope scope: the same bytes for any number of threads"
    within "$(py norms "$tmp/t.nts" "$tmp/t1.nts")" 0 0.25
    ok $? "$scope scope: norms differ from those of f32 by $(py norms "$tmp/t.nts" "$tmp/t1.nts") of the largest step, at most a quarter"
    rm -f "$tmp/state"
done

mkdir "$tmp/m" && cp tests/data/calib/tiny/* "$tmp/m/" && cp tests/data/tokenizer/smollm/tokenizer.json "$tmp/m/"
gen() { nt-gen-calib --progress none -m "$tmp/m" -n 3 -T 16 --seed 7 "$@"; }
gen "${b[@]}" -j 1 -o "$tmp/g1.nts" && gen "${b[@]}" -j 3 -o "$tmp/g3.nts" && cmp -s "$tmp/g1.nts" "$tmp/g3.nts"
ok $? "nt-gen-calib: runs, the same bytes for any number of threads"
gen -o "$tmp/g.nts"; [ "$(py says "$tmp/g.nts" params precision)$(py says "$tmp/g1.nts" params precision)" = '"f32""bf16"' ]
ok $? "nt-gen-calib: the header says it"
finish
