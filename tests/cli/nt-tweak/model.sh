# SPDX-License-Identifier: Apache-2.0
# nt-tweak --scope model on the tiny model: what is written is what was judged, by nt-eval and through nt-pack; codes stay;
# pipes, threads, a memory limit and kill -9 do not change a byte. The numbers themselves: tests/unit/test_scope.c.
. tests/cli/nt-tweak/lib.bash
q=$tmp/q.nts
tweak() { nt-tweak --progress none -m $M --tokens "$tmp/c.nts" --scope model --seq 8 --lr 0.01 --steps 30 --eval-every 5 "$@"; }
last() { tail -n 1 "$tmp/py"; }
get() { py get "$1" "$2"; last; }
near() { awk -v a="$1" -v b="$2" 'BEGIN { d = a - b; exit !(a != "" && b != "" && d < 2e-6 && d > -2e-6) }'; }
kl() { # what nt-eval finds on the held-out sequences
    nt-eval --progress none --tokens "$tmp/c.nts" --ref $M --no-drift "$@" | awk -F '\t' '$2 == "kl" { print $5 }'
}

tweak --report "$tmp/r.tsv" -o "$tmp/n.nts" "$q" 2>/dev/null; ok $? "norms: runs"
py same "$q" "$tmp/n.nts"; ok $? "norms: every record of the input passes unchanged ($(last) bytes)"
awk -F '\t' 'NR == 1 { bad = $0 != "step\tlr\tkl\tce\tgrad_norm\tholdout_kl\tseconds" }
    NR > 1 { n++; if (NF != 7 || $1 != n || ($6 != "") != (n % 5 == 0)) bad = 1 } END { exit bad || n != 30 }' "$tmp/r.tsv"
ok $? "norms: --report has 30 steps, every fifth evaluated"
awk "BEGIN { exit !($(get "$tmp/n.nts" kl_new) < $(get "$tmp/n.nts" kl_old)) }"
ok $? "norms: held-out KL fell, $(get "$tmp/n.nts" kl_old) to $(get "$tmp/n.nts" kl_new)"
for x in "--final-norm" "--norms-step relative --final-norm" "--norms-step relative --params norms+scales" "--params norms+scales --final-norm" "--loss ce" "--loss kl+ce --params norms+scales"; do
    tweak $x -o "$tmp/x.nts" "$q" 2>/dev/null && nt-stream verify "$tmp/x.nts" >/dev/null
    ok $? "$x: runs"
    near "$(kl -m $M --qweights "$tmp/x.nts")" "$(get "$tmp/x.nts" kl_new)"
    ok $? "$x: nt-eval finds the verdict's KL ($(last), $(get "$tmp/x.nts" verdict))"
done
near "$(kl -m $M --qweights "$tmp/n.nts" --norms old)" "$(get "$tmp/n.nts" kl_old)"; ok $? "nt-eval --norms old: the KL before"

# through nt-pack: final norm and scales arrive in the checkpoint
tweak --params norms+scales --final-norm -o "$tmp/x.nts" "$q" 2>/dev/null
nt-pack --progress none -m $M --format hf -o "$tmp/hf" "$tmp/x.nts" 2>"$tmp/stderr"
near "$(kl -m "$tmp/hf")" "$(get "$tmp/x.nts" kl_new)"; ok $? "nt-pack --format hf: the same KL from the checkpoint"
nt-stream ls "$tmp/x.nts" | tail -n 2 | awk -F '\t' '$4 != "model.norm.weight" { bad = 1 } END { exit bad || NR != 2 }'
ok $? "the final norm follows the last layer, old and new"
py scales "$q" "$tmp/x.nts"; ok $? "norms+scales: codes and zeros are the input's, scales differ ($(last))"
near "$(get "$tmp/x.nts" bits)" "$(get "$q" bits)"; ok $? "norms+scales: effective bits stay"

tweak --final-norm -o "$tmp/x.nts" "$q" 2>/dev/null
nt-pack --progress none -m $M --format hf -o "$tmp/plain" "$q" 2>/dev/null
nt-pack --progress none -m $M --norms-into "$tmp/plain" -o "$tmp/into" "$tmp/x.nts" >"$tmp/counts" 2>"$tmp/stderr" &&
    grep -qx "$(printf 'norms\t5')" "$tmp/counts" && near "$(kl -m "$tmp/into")" "$(get "$tmp/x.nts" kl_new)"
ok $? "nt-pack --norms-into: five norms, the same KL"

# a verdict that is negative leaves everything as it was
tweak --lr 3 --params norms+scales --require-gain -o "$tmp/x.nts" "$q" 2>"$tmp/stderr"
[ $? = 1 ] && [ "$(get "$tmp/x.nts" verdict)" = negative ] && py same "$q" "$tmp/x.nts"
ok $? "a step that is too large: exit 1 with --require-gain, scales and codes as in the input"
near "$(kl -m $M --qweights "$tmp/x.nts")" "$(kl -m $M --qweights "$q")"; ok $? "whose KL is that of the input"
tweak --lr 1e30 -o "$tmp/x.nts" "$q" 2>"$tmp/stderr"
[ $? = 0 ] && grep -q 'training ended after step' "$tmp/stderr" && [ "$(get "$tmp/x.nts" norms)" = old ]
ok $? "a loss that is not finite ends training: $(grep -m 1 'training ended' "$tmp/stderr" | cut -c 1-120)"

# bytes
tweak -j 2 -o "$tmp/x.nts" "$q" 2>/dev/null && cmp -s "$tmp/x.nts" "$tmp/n.nts"; ok $? "2 threads: the same bytes"
cat "$q" | tweak 2>/dev/null | cat >"$tmp/x.nts"; cmp -s "$tmp/x.nts" "$tmp/n.nts"; ok $? "through pipes: the same bytes"
tweak --checkpoint "$tmp/state" --checkpoint-every 3 -o "$tmp/x.nts" "$q" 2>/dev/null && cmp -s "$tmp/x.nts" "$tmp/n.nts"
ok $? "with checkpoints: the same bytes"
tweak --checkpoint "$tmp/state" -o "$tmp/x.nts" "$q" 2>"$tmp/stderr" && cmp -s "$tmp/x.nts" "$tmp/n.nts"
ok $? "again, from the last of them: the same bytes"
tweak --checkpoint "$tmp/state" --clip 0.5 -o "$tmp/out.nts" "$q" 2>"$tmp/stderr"
[ $? = 65 ] && grep -q 'of another run (clip differs)' "$tmp/stderr" && [ ! -e "$tmp/out.nts" ]
ok $? "a checkpoint of other options is refused"
long=(--progress none -m $M --tokens "$tmp/c.nts" --scope model --seq 8 --lr 0.01 --steps 100 --eval-every 25)
nt-tweak "${long[@]}" -o "$tmp/whole.nts" "$q" 2>/dev/null
for sig in KILL TERM; do
    fresh='rm -f "$tmp/state"' struck $sig '[ -e "$tmp/state" ]' nt-tweak "${long[@]}" --checkpoint "$tmp/state" --checkpoint-every 5 -o "$tmp/x.nts" "$q"; rc=$?
    [ $rc = $([ $sig = KILL ] && echo 137 || echo 143) ] && [ -e "$tmp/state" ]; ok $? "SIG$sig in the middle (exit $rc)"
    if [ $sig = KILL ]; then rm -f "$tmp"/.*.nt-*; fi # of the output, of a state that was being written: nobody else can
    nt-tweak "${long[@]}" --checkpoint "$tmp/state" --progress plain --checkpoint-every 5 -o "$tmp/x.nts" "$q" 2>"$tmp/stderr" &&
        grep -q 'goes on after step' "$tmp/stderr" && cmp -s "$tmp/x.nts" "$tmp/whole.nts"
    ok $? "taken up again: the same bytes"
done

tweak --checkpoint "$tmp/state" --lr 0.01 --steps 100 --eval-every 25 --norms-step relative -o "$tmp/out.nts" "$q" 2>"$tmp/stderr"
[ $? = 65 ] && grep -q 'of another run (norms_step differs)' "$tmp/stderr"; ok $? "a checkpoint of absolute steps is refused for relative ones"

# block scope first: its valid norms are where model scope starts
nt-tweak --progress none -m $M --tokens "$tmp/c.nts" --loss nmse --lr 0.01 --lr-scale 0 --iters 2 -o "$tmp/block.nts" "$q" 2>/dev/null
tweak --progress plain -o "$tmp/x.nts" "$q" 2>&1 | grep -q 'tweaked already'; [ $? = 1 ]; ok $? "a quantizer's output is not called tweaked"
tweak --progress plain -o "$tmp/x.nts" "$tmp/block.nts" 2>&1 | grep -q 'block.nts: was tweaked already'; ok $? "a tweaked one is"
near "$(get "$tmp/x.nts" kl_old)" "$(get "$tmp/block.nts" kl_new)"; ok $? "after block scope: the KL starts where that ended"
tweak --layers 1:2 -o "$tmp/x.nts" "$q" 2>/dev/null && py unchanged "$tmp/x.nts" 0 && ! py unchanged "$tmp/x.nts" 1
ok $? "--layers 1:2 trains layer 1 alone"
tweak --lr auto --steps 12 --progress plain -o "$tmp/x.nts" "$q" 2>"$tmp/stderr" && [ "$(grep -c 'lr auto: .* KL' "$tmp/stderr")" = 3 ]
ok $? "--lr auto tries three rates (rate $(get "$tmp/x.nts" lr))"
nt-tweak --progress none -m $M --tokens "$tmp/c.nts" --scope model --steps 2 -o "$tmp/x.nts" "$q" 2>/dev/null
ok $? "--seq longer than a sequence takes the whole sequence"
cat "$tmp/c.nts" "$tmp/c.nts" >"$tmp/two.nts"
tweak --tokens "$tmp/two.nts" -o "$tmp/x.nts" "$q" 2>/dev/null && [ "$(get "$tmp/x.nts" n)" = 44 ] &&
    near "$(get "$tmp/x.nts" kl_old)" "$(get "$tmp/n.nts" kl_old)"
ok $? "two tokens streams, one after the other: both kinds of sequences twice"
tokens tests/data/collect/ids.json 0 "$tmp/all.nts"
tweak --tokens "$tmp/all.nts" -o "$tmp/x.nts" "$q" 2>"$tmp/stderr" && [ "$(get "$tmp/x.nts" verdict)" = none ] &&
    [ "$(get "$tmp/x.nts" norms)" = new ]
ok $? "no held-out sequences: verdict none, the last step counts"

# bad input
bad() { local name=$1 code=$2 pattern=$3; shift 3; try "$name" "$code" "$pattern" tweak -o "$tmp/out.nts" "$@"; }
bad "block loss" 2 "'nmse' is not available in model scope" --loss nmse "$q"
bad "closed form" 2 'closed-form: only with --scope block' --opt closed-form "$q"
bad "acts" 2 'acts-out: only with --scope block' --acts-out "$tmp/a.nts" "$q"
bad "passes" 2 'iters, .*: only with --scope block' --iters 3 "$q"
try "block scope has no checkpoints" 2 'checkpoint: only with --scope model' nt-tweak -m $M --tokens "$tmp/c.nts" --checkpoint "$tmp/s" "$q"
[ "$(tweak --loss list)" = "$(printf 'kl\nce\nkl+ce')" ]; ok $? "--loss list"
bad "checkpoint on stdout" 2 'checkpoint: a file' --checkpoint - "$q"
bad "biases" 2 "'norms\+bias' is not available in model scope" --params norms+bias "$q"
bad "auto without held-out data" 2 'no held-out sequences to choose by' --lr auto --tokens "$tmp/all.nts" "$q"
bad "rate" 2 "'fast' is not a number" --lr fast "$q"
bad "memory" 75 'max-mem allows' --max-mem 1M "$q"
head -c 5000 "$q" >"$tmp/cut.nts"
bad "truncated" 65 'cut.nts' "$tmp/cut.nts"
nt-quant --progress none -m $M -q rtn -b 3 -g 16 --layers 1:2 -o "$tmp/tail.nts"
bad "first layer missing" 65 'layer 0 is missing' "$tmp/tail.nts"
nt-quant --progress none -m tests/data/model/llama3 -q rtn -b 3 -g 16 -o "$tmp/other.nts"
bad "qweights of another model" 65 'other.nts' "$tmp/other.nts"
bad "no such stream" 74 'nowhere.nts' "$tmp/nowhere.nts"
head -c 300 "$tmp/state" >"$tmp/badstate"
bad "truncated checkpoint" 65 'badstate' --checkpoint "$tmp/badstate" "$q"
try "block scope has no --lr auto" 2 'only with --scope model' nt-tweak -m $M --tokens "$tmp/c.nts" --lr auto "$q"
finish
