# SPDX-License-Identifier: Apache-2.0
# pipelines/norm-tweak.mk: the ring's records, layer by layer; nothing is done twice; a changed option redoes what depends on
# it; kills at any moment cost at most the layer at work (NT_KILLS of them, 8; NT_SEED=1: which).
. tests/cli/ring/lib.bash
L=5
make_model $L || exit 1
D=$tmp/o
mk() { recipe MODEL="$M" TOKENS="$C" GROUP=16 DIR="$D" COLLECT_OPTS="$q" QUANT_OPTS="$q" "$@"; }

ring 2 "$tmp/q.nts"
mk; ok $? "make runs $(grep -h -i error "$tmp/log" | tail -n 1)"
py same "$tmp/q.nts" "$D/q.nts" >"$tmp/py" 2>&1; ok $? "the ring's records ($(tail -n 1 "$tmp/py"))"
[ "$(py trailer "$tmp/q.nts" kl_new)" = "$(py trailer "$D/q.nts" kl_new)" ]; ok $? "and its verdict: KL $(py trailer "$D/q.nts" kl_new)"
cp "$D/q.nts" "$tmp/first.nts"
[ "$(cd "$D" && ls | grep -v '^q\.' | tr '\n' ' ')" = "collect.stamp input.mk input.stamp needs.stamp paths.stamp quant.0.nts quant.stamp stats.0.nts tweak.stamp " ]
ok $? "no boundary is left: $(cd "$D" && ls | grep -v '^q\.' | tr '\n' ' ')"
times() { stat -c '%n %y' "$D"/*.nts "$D"/*.stamp; }
before=$(times); mk && [ ! -s "$tmp/ran" ] && [ "$before" = "$(times)" ]; ok $? "nothing to do the second time"
touch "$M/model.safetensors" "$C"; mk && [ -z "$(ran nt-collect)" ]; ok $? "nor when the inputs are as before, only touched"
mk THREADS=1 && [ -z "$(ran nt-collect)" ]; ok $? "nor with another number of threads"

mk TWEAK_OPTS='--iters 2'
[ "$(ran nt-tweak)" = "0 1 2 3 4" ] && [ "$(ran nt-quant)" = "1 2 3 4" ] && [ "$(ran nt-collect)" = "1 2 3 4" ]
ok $? "an option of nt-tweak: nt-quant for layers $(ran nt-quant), nt-tweak for $(ran nt-tweak)"
cmp -s "$D/q.nts" "$tmp/first.nts"; [ $? = 1 ]; ok $? "and another result"
mk TWEAK_OPTS='--iters 2' BITS=4
[ "$(ran nt-tweak)" = "0 1 2 3 4" ] && [ "$(ran nt-quant)" = "0 1 2 3 4" ] && [ "$(ran nt-collect)" = "1 2 3 4" ]
ok $? "BITS: nt-collect for layers $(ran nt-collect), nt-quant for $(ran nt-quant)"
mk && cmp -s "$D/q.nts" "$tmp/first.nts"; ok $? "the first options again: the first bytes"
tokens() { "$PYTHON" tests/cli/nt-collect/tokens.py "$M/ids.json" "$1" "$C"; }
tokens 3 && mk && [ "$(ran nt-collect)" = "0 1 2 3 4" ]; ok $? "other tokens: everything"
tokens 4 && mk && cmp -s "$D/q.nts" "$tmp/first.nts"; ok $? "the first tokens again: the first bytes"
rm "$D/q.nts" "$D/q.2.nts"; mk && cmp -s "$D/q.nts" "$tmp/first.nts"; ok $? "a layer's codes lost: made again, the same bytes"
mk METHOD=rtn; [ $? = 0 ] && [ -z "$(ran nt-collect)" ] && [ "$(ran nt-quant)" = "0 1 2 3 4" ]
ok $? "a method that needs no statistics: nt-collect does not run $(tail -n 1 "$tmp/log")"
nt-quant $q -m "$M" -q rtn -b 3 -g 16 | nt-tweak $q -m "$M" --tokens "$C" -o "$tmp/rtn.nts" 2>/dev/null
py same "$tmp/rtn.nts" "$D/q.nts" >"$tmp/py" 2>&1; ok $? "and the records are those of one pipe ($(tail -n 1 "$tmp/py"))"
mk QUANT_OPTS=--no-such; rc=$?
[ $rc = 2 ] && grep -q "^nt-quant: .*no-such" "$tmp/log" && ! grep -q 'nt-collect' "$tmp/log"
ok $? "nt-quant refuses its options: its own reason, nothing else ($(grep -h '^nt-' "$tmp/log" | head -n 1))"
mk MODEL="$tmp/nosuch"; rc=$?; [ $rc = 2 ] && grep -q "No rule .*nosuch" "$tmp/log"; ok $? "no such model: $(tail -n 1 "$tmp/log")"
mk && cmp -s "$D/q.nts" "$tmp/first.nts"; ok $? "the first method again: the first bytes"
mk MODEL=; [ $? = 2 ] && grep -q 'MODEL is not set' "$tmp/log"; ok $? "no MODEL: $(tail -n 1 "$tmp/log")"

"$PYTHON" $here/makekill.py "$M" "$C" "$tmp/k" "$tmp/first.nts" $L "${NT_KILLS:-8}" "${NT_SEED:-1}" >"$tmp/kills" 2>&1; rc=$?
grep '^#' "$tmp/kills"
ok $rc "$(tail -n 1 "$tmp/kills")"
finish
