# SPDX-License-Identifier: Apache-2.0
# Norms for a checkpoint that keeps them as BF16: a small tweak is erased by rounding and refused, the authors' rate
# survives, and --norm-dtype, which rounds in every forward, ends with a better model than rounding afterwards.
. tests/cli/nt-tweak/lib.bash
q=$tmp/q.nts c=$tmp/c
nt-pack --progress none -m $M --format hf --norm-dtype bf16 -o "$c" "$q" 2>/dev/null; ok $? "a checkpoint with bf16 norms"
kl() { nt-eval --progress none --tokens "$tmp/c.nts" --ref $M --no-drift "$@" | awk -F '\t' '$2 == "kl" { print $5 }'; }
tweak() { nt-tweak --progress none -m $M --tokens "$tmp/c.nts" "$@" 2>/dev/null; }
into() { rm -rf "$2"; nt-pack --progress none --norms new --norms-into "$c" -o "$2" "$1" >"$tmp/counts" 2>"$tmp/stderr"; }
get() { py get "$1" "$2"; tail -n 1 "$tmp/py"; }
below() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && b != "" && a < b) }'; }
near() { awk -v a="$1" -v b="$2" 'BEGIN { d = a - b; exit !(a != "" && b != "" && d < 2e-6 && d > -2e-6) }'; }

# the authors take 128 steps in a layer: here 22 passes over 6 sequences
tweak --lr 1e-5 --lr-scale 0 --iters 22 -o "$tmp/small.nts" "$q"
into "$tmp/small.nts" "$tmp/out"
[ $? = 65 ] && grep -q 'rounding to BF16 erases the tweak' "$tmp/stderr" && [ ! -e "$tmp/out" ]
ok $? "--lr 1e-5: refused, $(grep -o '[0-9.]* % of it are left' "$tmp/stderr")"
tweak --lr 1e-4 --lr-scale 10 --iters 22 -o "$tmp/authors.nts" "$q" && into "$tmp/authors.nts" "$tmp/n"
ok $? "--lr 1e-4 --lr-scale 10: survives ($(tr '\n\t' ' =' <"$tmp/counts"))"
tweak --lr 1e-4 --lr-scale 10 --iters 22 --norm-dtype bf16 -o "$tmp/b.nts" "$q" && into "$tmp/b.nts" "$tmp/n" &&
    grep -q '^kept	1.000000$' "$tmp/counts" && py exact "$tmp/b.nts" bf16
ok $? "block scope, --norm-dtype bf16: norms are exact in bf16, nothing is lost on the way"
near "$(kl -m "$tmp/n")" "$(get "$tmp/b.nts" kl_new)"; ok $? "block scope: the verdict's KL is that of the checkpoint as read again"
tweak --lr 1e-4 --lr-scale 10 --iters 22 --norms-step relative --norm-dtype bf16 -o "$tmp/r.nts" "$q" && py exact "$tmp/r.nts" bf16
ok $? "block scope, relative steps: exact in bf16"
tweak --loss nmse --opt closed-form --norm-dtype f16 -o "$tmp/f.nts" "$q" && py exact "$tmp/f.nts" f16; ok $? "closed form, --norm-dtype f16: exact"

for s in "--lr 0.001 --steps 60" "--lr 0.0003 --steps 120"; do
    m="--scope model --seq 8 $s"
    tweak $m -o "$tmp/a.nts" "$q" && into "$tmp/a.nts" "$tmp/n-after" && tweak $m --norm-dtype bf16 -o "$tmp/b.nts" "$q" && into "$tmp/b.nts" "$tmp/n-in"
    ok $? "model scope, $s: both arrive in the checkpoint"
    py exact "$tmp/b.nts" bf16 && grep -q '^kept	1.000000$' "$tmp/counts"; ok $? "model scope, $s: norms are exact in bf16"
    near "$(kl -m "$tmp/n-in")" "$(get "$tmp/b.nts" kl_new)"; ok $? "model scope, $s: the verdict's KL is the checkpoint's"
    after=$(kl -m "$tmp/n-after") in=$(kl -m "$tmp/n-in")
    below "$in" "$after"; ok $? "model scope, $s: KL $in; $after when rounded afterwards; $(kl -m "$c") before"
done

# a run that goes on from a checkpoint has lost none of the unrounded values
m="--scope model --seq 8 --lr 0.001 --steps 60 --norm-dtype bf16 --norms-step relative --checkpoint-every 10"
tweak $m -o "$tmp/b.nts" "$q"
nt-tweak --progress plain -m $M --tokens "$tmp/c.nts" $m --checkpoint "$tmp/state" -o "$tmp/r.nts" "$q" 2>/dev/null &
pid=$!; while [ ! -e "$tmp/state" ] && kill -0 $pid 2>/dev/null; do :; done
kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null
tweak $m --checkpoint "$tmp/state" -o "$tmp/r.nts" "$q" && cmp -s "$tmp/b.nts" "$tmp/r.nts"; ok $? "killed and resumed: the same bytes"
nt-tweak --progress none -m $M --tokens "$tmp/c.nts" --scope model --params all --loss ce --norm-dtype bf16 -o "$tmp/x.nts" 2>"$tmp/stderr"
[ $? = 2 ] && grep -q 'norm-dtype' "$tmp/stderr"; ok $? "not with --params all: $(tail -n 1 "$tmp/stderr")"
finish
