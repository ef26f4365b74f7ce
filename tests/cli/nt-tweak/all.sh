# SPDX-License-Identifier: Apache-2.0
# nt-tweak --params all: from a config.json to a model directory that nt-eval finds as good as the verdict says; goes on from
# a finished model; bytes do not depend on threads, checkpoints or kill -9; what it refuses. The numbers themselves:
# tests/unit/test_scope_all.c.
. tests/cli/nt-tweak/lib.bash
get() { py get "$1" "$2"; tail -n 1 "$tmp/py"; }
near() { awk -v a="$1" -v b="$2" 'BEGIN { d = a - b; exit !(a != "" && b != "" && d < 1e-5 && d > -1e-5) }'; }
# log of the perplexity that nt-eval finds on the held-out sequences
ce() { nt-eval --progress none --tokens "$tmp/c.nts" -m "$1" --no-drift | awk -F '\t' '$2 == "ppl" { printf "%.7f", log($5) }'; }
init() { # DIR TIED: the tiny model's shape, random weights
    mkdir -p "$1"
    "$PYTHON" -c 'import json, sys
c = json.load(open(sys.argv[1]))
c.update(nt_init_seed=7, initializer_range=0.1, tie_word_embeddings=sys.argv[3] == "tied")
json.dump(c, open(sys.argv[2], "w"))' $M/config.json "$1/config.json" "$2"
}
tweak() {
    nt-tweak --progress none --tokens "$tmp/c.nts" --scope model --params all --seq 8 --batch 4 --lr 0.01 --steps 30 \
        --eval-every 5 --weight-decay 0.1 "$@"
}

for kind in tied untied; do
    init "$tmp/$kind" $kind
    tweak -m "$tmp/$kind" --report "$tmp/r.tsv" -o "$tmp/$kind.nts" 2>"$tmp/stderr" && nt-stream verify "$tmp/$kind.nts" >/dev/null
    ok $? "$kind: trains from random weights: $(tail -n 1 "$tmp/stderr" | cut -c 1-100)"
    [ "$(get "$tmp/$kind.nts" verdict)" = positive ] && near "$(ce "$tmp/$kind")" "$(get "$tmp/$kind.nts" ce_old)"
    ok $? "$kind: the start is what nt-eval finds for the config.json alone ($(ce "$tmp/$kind"))"
    nt-pack --progress none -m "$tmp/$kind" --format hf -o "$tmp/$kind.hf" "$tmp/$kind.nts" 2>"$tmp/stderr" &&
        near "$(ce "$tmp/$kind.hf")" "$(get "$tmp/$kind.nts" ce_new)"
    ok $? "$kind: the packed model has the verdict's cross-entropy ($(get "$tmp/$kind.nts" ce_new))"
    ! grep -q nt_init_seed "$tmp/$kind.hf/config.json"; ok $? "$kind: the packed config.json asks for no random weights"
    awk -F '\t' 'NR == 1 { bad = $6 != "holdout_ce" } NR > 1 { n++; if ($3 != "" || $4 == "" || ($6 != "") != (n % 5 == 0)) bad = 1 }
        END { exit bad || n != 30 }' "$tmp/r.tsv"
    ok $? "$kind: --report has cross-entropies"
    tweak -m "$tmp/$kind/config.json" -j 2 -o "$tmp/x.nts" 2>/dev/null && cmp -s "$tmp/x.nts" "$tmp/$kind.nts"
    ok $? "$kind: 2 threads, config.json by its own name: the same bytes"
done
[ "$(nt-stream ls "$tmp/untied.nts" | grep -c 'lm_head.weight\|embed_tokens.weight')" -gt "$(nt-stream ls "$tmp/tied.nts" |
    grep -c 'lm_head.weight\|embed_tokens.weight')" ]; ok $? "untied: the head is in the stream, too"

# stopped by kill -9 at any time, taken up again
mkdir "$tmp/killed"
long=(--progress none --tokens "$tmp/c.nts" --scope model --params all --seq 8 --batch 4 --lr 0.01 --weight-decay 0.1
    -m "$tmp/tied" --steps 400 --eval-every 100 --checkpoint-every 5)
nt-tweak "${long[@]}" --checkpoint "$tmp/whole" -o "$tmp/long.nts" 2>/dev/null; ok $? "400 steps"
killed_twice() {
    local i
    rm -f "$tmp"/killed/*
    for i in 1 2; do
        rm -f "$tmp/pid"
        # in a shell of its own, which says nothing when it is killed
        ( nt-tweak "${long[@]}" --checkpoint "$tmp/killed/state" -o "$tmp/killed/x.nts" 2>/dev/null &
          echo $! >"$tmp/pid"; wait $! ) 2>/dev/null &
        soon [ -s "$tmp/pid" ]; soon eval '[ "$tmp/killed/state" -nt "$tmp/pid" ] || ended $(cat "$tmp/pid")'
        kill -KILL "$(cat "$tmp/pid")" 2>/dev/null
        wait
    done
    nt-tweak "${long[@]}" --checkpoint "$tmp/killed/state" --report "$tmp/r.tsv" -o "$tmp/x.nts" 2>/dev/null
    from=$(sed -n 2p "$tmp/r.tsv" | cut -f 1)
}
for attempt in 1 2 3 4 5 6 7 8; do # on a busy machine the signal may come after the last step: then there was nothing to take up
    killed_twice
    [ "${from:-0}" -le 1 ] || break
done
[ "${from:-0}" -gt 1 ] && cmp -s "$tmp/x.nts" "$tmp/long.nts"
ok $? "killed twice, taken up again at step $from: the same bytes"

# from a finished model on
tweak -m "$tmp/tied.hf" --lr 0.003 -o "$tmp/x.nts" 2>/dev/null && near "$(get "$tmp/x.nts" ce_old)" "$(get "$tmp/tied.nts" ce_new)"
ok $? "a trained model: goes on from where it is ($(get "$tmp/x.nts" ce_old) to $(get "$tmp/x.nts" ce_new))"
tweak -m "$tmp/tied.hf" --lr 30 --require-gain -o "$tmp/x.nts" 2>/dev/null; rc=$?
nt-pack --progress none -m "$tmp/tied.hf" --format hf -o "$tmp/same.hf" "$tmp/x.nts" 2>/dev/null
[ $rc = 1 ] && cmp -s "$tmp/same.hf/model.safetensors" "$tmp/tied.hf/model.safetensors"
ok $? "a step that is too large: exit 1 with --require-gain, the model as it was"

try "nt-eval on such a stream" 65 'is no linear of a block' nt-eval -m "$tmp/tied" --qweights "$tmp/tied.nts" --tokens "$tmp/c.nts"
run() { tweak -o "$tmp/out.nts" "$@"; }
try "a qweights stream" 2 'no qweights stream is' run -m $M "$tmp/q.nts"
try "--loss kl" 2 'only --loss ce' run -m $M --loss kl
try "--norms-step" 2 'norms-step: not with --params all' run -m $M --norms-step relative
try "--layers" 2 'no meaning' run -m $M --layers 0:1
try "block scope" 2 'not available in block scope' nt-tweak -m $M --tokens "$tmp/c.nts" --params all -o "$tmp/out.nts"
mkdir "$tmp/none"; cp $M/config.json "$tmp/none"
try "a config.json without seed or weights" 65 'neither model.safetensors nor' run -m "$tmp/none"
sed 's/"nt_init_seed": 7/"nt_init_seed": 1.5/' "$tmp/tied/config.json" >"$tmp/none/config.json"
try "a seed that is no whole number" 65 'nt_init_seed is no whole number' run -m "$tmp/none"
finish
