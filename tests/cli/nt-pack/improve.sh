# SPDX-License-Identifier: Apache-2.0
# One pipeline line makes a finished checkpoint better: GGUF, GPTQ, AWQ, compressed-tensors and MLX; every byte but those of
# the norms stays, and what lies there afterwards, rounded to its type and read again, is nearer to the float model.
. tests/tap.bash
need_python
M=tests/data/embedded q="--progress none"
text() { "$O/tests/data/embedded/story" -s "$1" -n "$2" >"$tmp/text"; }
text 6 30000; nt-gen-calib $q -m $M --scheme text --text "$tmp/text" -n 24 -T 128 --holdout 1/4 -o "$tmp/c.nts" 2>/dev/null; ok $? "calibration text"
text 7 20000; nt-gen-calib $q -m $M --scheme text --text "$tmp/text" -n 12 -T 128 --holdout 0.9 -o "$tmp/e.nts" 2>/dev/null; ok $? "other text"

made() { # FORMAT QUANT-OPTIONS -- PACK-OPTIONS: somebody's checkpoint
    local f=$1 quant=(); shift
    while [ "$1" != -- ]; do quant+=("$1"); shift; done
    shift
    nt-quant $q -m "$from" -q rtn "${quant[@]}" 2>/dev/null | nt-pack $q -m "$from" --format "$f" "$@" -o "$tmp/$f" 2>"$tmp/stderr"
    ok $? "a checkpoint: $f ${quant[*]} $* $([ -e "$tmp/$f" ] || tail -n 1 "$tmp/stderr")"
}
kl() { # of a checkpoint as it lies
    nt-eval $q -m "$1" --ref $M --no-drift --tokens "$tmp/e.nts" 2>"$tmp/stderr" | awk -F '\t' '$2 == "kl" { print $5 }'
}
data() { if [ -d "$1" ]; then echo "$1/model.safetensors"; else echo "$1"; fi; }
improve() { # FORMAT NORM-DTYPE: the line of the manual, and what it must have done
    local c="$tmp/$1" n="$tmp/new-$1" before after n_changed
    nt-quant $q -q import "$c" 2>/dev/null | nt-tweak $q -m $M --tokens "$tmp/c.nts" --scope model --steps 12 --batch 4 \
        --warmup 2 --eval-every 4 --lr 2e-3 --norm-dtype "$2" 2>"$tmp/tweak" | tee "$tmp/t.nts" |
        nt-pack $q --norms-into "$c" -o "$n" >"$tmp/stdout" 2>"$tmp/stderr"
    ok $? "$1: one line $(tail -qn 1 "$tmp/tweak" "$tmp/stderr" | tr '\n' ' ')"
    n_changed=$("$PYTHON" tests/cli/nt-pack/oracle.py norms "$tmp/t.nts" "$(data "$c")" "$(data "$n")" new 2>"$tmp/stderr") &&
        [ "$n_changed" -gt 0 ] && grep -q "^changed	$n_changed\$" "$tmp/stdout" && grep -Eq '^fraction	(0\.[0-9]*[1-9]|1\.0)' "$tmp/stdout"
    ok $? "$1: nothing but norms differs, $n_changed elements $(tail -n 1 "$tmp/stderr")"
    before=$(kl "$c") after=$(kl "$n")
    awk -v a="$before" -v b="$after" 'BEGIN { exit !(a > 0 && b > 0 && b < a) }'; ok $? "$1: divergence from the float model $before, then $after"
    nt-pack $q -m "$c" --format overlay "$tmp/t.nts" -o "$tmp/o-$1" 2>/dev/null &&
        nt-pack $q --apply "$tmp/o-$1" -m "$c" -o "$tmp/a-$1" >/dev/null 2>"$tmp/stderr" && cmp -s "$(data "$n")" "$(data "$tmp/a-$1")"
    ok $? "$1: overlay and --apply give the same bytes"
}
from=$M
made gptq -b 2 -g 32 -- --norm-dtype f16; improve gptq f16
made compressed-tensors -b 2 -g 64 -- --norm-dtype bf16; improve compressed-tensors bf16
made mlx -b 2 -g 64 --sym --; improve mlx f16
made gguf -b 2 -g 32 --sym --; improve gguf f32
# a folded model: its norms are not the float model's, and the tweak starts from them
"$PYTHON" tests/cli/nt-pack/fold.py $M "$tmp/folded" && k=$(kl "$tmp/folded") && awk -v k="$k" 'BEGIN { exit !(k != "" && k < 1e-6) }'
ok $? "a model with folded norms computes the same: divergence $k"
from=$tmp/folded
made awq -b 4 -g 64 --; improve awq f32

# what was imported is the whole checkpoint: it is packed again without -m
for f in gptq compressed-tensors mlx gguf awq; do
    nt-quant $q -q import "$tmp/$f" 2>/dev/null | nt-pack $q --format $f -o "$tmp/again-$f" 2>"$tmp/stderr" && diff -r "$tmp/$f" "$tmp/again-$f"
    ok $? "$f: import | nt-pack without -m gives the same directory, byte by byte $(tail -n 1 "$tmp/stderr")"
done
nt-quant $q -q import "$tmp/awq" 2>/dev/null | nt-tweak $q -m $M --tokens "$tmp/c.nts" --iters 0 2>/dev/null | tee "$tmp/block.nts" |
    nt-pack $q --norms old --format awq -o "$tmp/block" 2>"$tmp/stderr" && diff -r "$tmp/awq" "$tmp/block"
ok $? "also after nt-tweak $(tail -n 1 "$tmp/stderr")"
nt-pack $q --norms new --format awq "$tmp/t.nts" -o "$tmp/whole" 2>"$tmp/stderr" && cmp "$tmp/whole/model.safetensors" "$tmp/new-awq/model.safetensors"
ok $? "and of model scope: what --norms-into gives $(tail -n 1 "$tmp/stderr")"
nt-quant $q -q import "$tmp/gptq" 2>/dev/null >"$tmp/i.nts"; nt-pack $q --format awq "$tmp/i.nts" -o "$tmp/out" 2>"$tmp/stderr"; rc=$?
[ $rc = 65 ] && grep -q 'bits other than 4' "$tmp/stderr"; ok $? "what another layout cannot hold is refused"
nt-quant $q -m $M -q rtn 2>/dev/null | nt-pack $q --format hf -o "$tmp/out" 2>"$tmp/stderr"; rc=$?
[ $rc = 2 ] && grep -q 'no model: -m MODEL' "$tmp/stderr" && [ ! -e "$tmp/out" ]; ok $? "a stream that was not imported needs -m"
mkdir "$tmp/empty" && TMPDIR="$tmp/empty" nt-pack $q --format hf "$tmp/i.nts" -o "$tmp/hf" 2>"$tmp/stderr" && [ -z "$(ls -A "$tmp/empty")" ]
ok $? "nothing is left in TMPDIR"

hostile() { # WHY KIND KEY VALUE
    "$PYTHON" tests/cli/nt-pack/oracle.py harm "$tmp/i.nts" "$tmp/bad.nts" "${@:2}" && nt-pack $q --format hf "$tmp/bad.nts" -o "$tmp/out" 2>"$tmp/stderr"
    local rc=$?
    [ $rc = 65 ] && grep -q "$1" "$tmp/stderr" && [ ! -e "$tmp/out" ]; ok $? "$2 with $3 $4: exit $rc, $(tail -n 1 "$tmp/stderr" | sed "s|$tmp|.|")"
}
hostile 'no plain name' file name ../config.json
hostile 'no plain name' file name .bashrc
hostile 'more than it has' file size 10
hostile 'more than it has' file size -1
hostile 'no place' tensor offset 3
hostile 'no place' tensor offset 9000000000
hostile 'no place' tensor file other.safetensors

# without the float model there is nothing to tune against
nt-quant $q -q import "$tmp/awq" 2>/dev/null | nt-tweak $q --tokens "$tmp/c.nts" --scope model >/dev/null 2>"$tmp/stderr"; rc=$?
[ $rc = 2 ] && grep -q 'float' "$tmp/stderr"; ok $? "without -m: exit $rc, $(tail -n 1 "$tmp/stderr")"
finish
