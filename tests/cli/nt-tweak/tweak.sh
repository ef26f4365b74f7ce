# SPDX-License-Identifier: Apache-2.0
# nt-tweak after nt-quant on the tiny model: codes untouched, norms, losses and verdict as PyTorch has them in float64
# (tests/data/tweak/make_model.py).
. tests/cli/nt-tweak/lib.bash
tweak() { nt-tweak --progress none -m $M --tokens "$tmp/c.nts" "$@"; }
last() { tail -n 1 "$tmp/py"; }

run_case() { # NAME OPTIONS...
    local name=$1; shift
    rm -f "$tmp/t.nts"
    tweak "$@" -o "$tmp/t.nts" "$tmp/q.nts" 2>"$tmp/stderr"; ok $? "$name: runs $(tail -n 1 "$tmp/stderr")"
    py same "$tmp/q.nts" "$tmp/t.nts"; ok $? "$name: every record of the input passes unchanged ($(last) bytes)"
    py case "$tmp/t.nts" $J "$name"; ok $? "$name: $(last)"
}
run_case author --lr 0.01 --lr-scale 1 --report "$tmp/r.tsv"
cp "$tmp/t.nts" "$tmp/author.nts"
[ "$(head -n 1 "$tmp/r.tsv" | cut -f 1,3,4)" = "$(printf 'layer\ttrain_before\ttrain_after')" ] &&
    awk -F '\t' 'NR > 1 { n++; if ($1 != NR - 2 || !($4 < $3) || !($6 < $5) || $8 != 1 || NF != 9) bad = 1 } END { exit bad || n != 2 }' "$tmp/r.tsv"
ok $? "author: --report has two layers whose losses fall"
run_case 'nmse two passes' --loss nmse --lr 0.01 --lr-scale 0 --iters 2
run_case 'mse float target' --loss mse --target float --lr 0.01 --lr-scale 1
run_case 'closed form' --loss nmse --opt closed-form
run_case 'one layer' --lr 0.01 --lr-scale 1 --layers 1:2
py unchanged "$tmp/t.nts" 0; ok $? "--layers 1:2 keeps the norms of layer 0"

# steps that are shares of the gains
rel() { tweak --norms-step relative --lr 0.01 --lr-scale 1 -o "$@" "$tmp/q.nts" 2>"$tmp/stderr"; }
rel "$tmp/rel.nts" && py same "$tmp/q.nts" "$tmp/rel.nts" && ! cmp -s "$tmp/rel.nts" "$tmp/author.nts"; ok $? "--norms-step relative: other norms"
rel "$tmp/x.nts" -j 3 && cmp -s "$tmp/x.nts" "$tmp/rel.nts"; ok $? "--norms-step relative: 3 threads, the same bytes"
nt-stream ls --header "$tmp/rel.nts" 2>/dev/null | grep -q 'norms_step.*relative'; ok $? "--norms-step relative: the header says so"
tweak --norms-step absolute --lr 0.01 --lr-scale 1 -o "$tmp/x.nts" "$tmp/q.nts" 2>/dev/null && cmp -s "$tmp/x.nts" "$tmp/author.nts"
ok $? "--norms-step absolute: the default of block scope"

# verdicts and exit codes
tweak --lr 0.01 --lr-scale 1 --require-gain -o "$tmp/t.nts" "$tmp/q.nts" 2>"$tmp/stderr"
[ $? = 1 ] && cmp -s "$tmp/t.nts" "$tmp/author.nts"; ok $? "--require-gain: exit 1, the same complete output"
tweak --loss nmse --lr 0.01 --lr-scale 0 --iters 2 --require-gain -o "$tmp/t.nts" "$tmp/q.nts" 2>"$tmp/stderr"
ok $? "--require-gain: exit 0 on a positive verdict"
nt-tweak -m $M --tokens "$tmp/c.nts" --iters 0 "$tmp/q.nts" >"$tmp/t.nts" 2>"$tmp/stderr"
[ $? = 0 ] && grep -q 'no element of any norm changed' "$tmp/stderr" && py case "$tmp/t.nts" $J 'no passes'
ok $? "--iters 0 only advances and says so"
grep -q 'verdict negative: KL on 22 held-out tokens 0.26907 -> 0.26907' "$tmp/stderr"; ok $? "the verdict is printed"
tokens tests/data/collect/ids.json 0 "$tmp/all.nts"
nt-tweak --progress none -m $M --tokens "$tmp/all.nts" -o "$tmp/t.nts" "$tmp/q.nts" 2>"$tmp/stderr" &&
    grep -q 'no verdict' "$tmp/stderr" && py get "$tmp/t.nts" verdict && [ "$(last)" = none ] &&
    py get "$tmp/t.nts" norms && [ "$(last)" = new ]
ok $? "no held-out sequences: verdict none, said aloud"
nt-tweak --progress none -m $M --tokens "$tmp/all.nts" --require-gain -o "$tmp/t.nts" "$tmp/q.nts" 2>/dev/null
[ $? = 1 ]; ok $? "--require-gain: no verdict is not a gain"

# nt-eval on the same sequences finds the same KL
tweak --loss nmse --lr 0.01 --lr-scale 0 --iters 2 -o "$tmp/t.nts" "$tmp/q.nts" 2>/dev/null
for which in old new; do
    nt-eval --progress none -m $M --qweights "$tmp/t.nts" --norms $which --tokens "$tmp/c.nts" --ref $M --no-drift >"$tmp/eval"
    py get "$tmp/t.nts" kl_$which
    awk -F '\t' -v want="$(last)" '$2 == "kl" { d = $5 - want; exit !(d < 2e-6 && d > -2e-6) } END { if (NR < 2) exit 1 }' "$tmp/eval"
    ok $? "nt-eval --norms $which --tokens: the verdict's KL ($(last))"
done

# guards
tweak --lr 0.8 "$tmp/q.nts" 2>"$tmp/stderr" >/dev/null && grep -q 'layer 0: a gain moved by' "$tmp/stderr"
ok $? "a step that is too large warns"
tweak --lr 1e30 -o "$tmp/t.nts" "$tmp/q.nts" 2>"$tmp/stderr" && grep -q 'layer 1: tweak dropped, old norms kept' "$tmp/stderr" &&
    py unchanged "$tmp/t.nts" 1 && py unchanged "$tmp/t.nts" 0
ok $? "a loss that is not finite drops the layer's tweak"

# bytes
nt-quant --progress none -m $M -q rtn -b 3 -g 16 | tweak --lr 0.01 --lr-scale 1 2>/dev/null | cat >"$tmp/pipe.nts"
cmp -s "$tmp/pipe.nts" "$tmp/author.nts"; ok $? "a pipe gives the same bytes as files"
for j in 1 2 3; do tweak -j $j --loss mae --lr 0.01 -o "$tmp/j$j.nts" "$tmp/q.nts" 2>/dev/null; done
cmp -s "$tmp/j1.nts" "$tmp/j2.nts" && cmp -s "$tmp/j1.nts" "$tmp/j3.nts"; ok $? "1, 2 and 3 threads give the same bytes"
tweak --loss list | awk '{ print $1 }' | tr '\n' ' ' | grep -qx 'author author2 mae mse nmse paper '; ok $? "--loss list"
finish
