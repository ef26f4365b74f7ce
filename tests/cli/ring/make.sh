# SPDX-License-Identifier: Apache-2.0
# pipelines/norm-tweak.mk: the ring's records, layer by layer; nothing is done twice; a changed option redoes what depends on
# it; kills at any moment cost at most the layer at work.
. tests/cli/ring/lib.bash
L=5
make_model $L || exit 1
D=$tmp/o
mk() {
    "${MAKE:-make}" --no-print-directory -f pipelines/norm-tweak.mk MODEL="$M" TOKENS="$C" GROUP=16 DIR="$D" \
        COLLECT_OPTS="$q" QUANT_OPTS="$q" "$@" >"$tmp/log" 2>&1
}
# ran TOOL: for which layers the last mk ran it
ran() { sed -n "s/^ *$1 .*--layers \([0-9]*\):.*/\1/p" "$tmp/log" | tr '\n' ' ' | sed 's/ $//'; }

ring 2 "$tmp/q.nts"
mk; ok $? "make runs $(grep -h -i error "$tmp/log" | tail -n 1)"
py same "$tmp/q.nts" "$D/q.nts" >"$tmp/py" 2>&1; ok $? "the ring's records ($(tail -n 1 "$tmp/py"))"
[ "$(py trailer "$tmp/q.nts" kl_new)" = "$(py trailer "$D/q.nts" kl_new)" ]; ok $? "and its verdict: KL $(py trailer "$D/q.nts" kl_new)"
cp "$D/q.nts" "$tmp/first.nts"
[ "$(cd "$D" && ls | grep -v '^q\.' | tr '\n' ' ')" = "collect.stamp input.mk paths.stamp quant.0.nts quant.stamp stats.0.nts tweak.stamp " ]
ok $? "no boundary is left: $(cd "$D" && ls | grep -v '^q\.' | tr '\n' ' ')"
mk && [ -z "$(ran nt-collect)$(ran nt-quant)$(ran nt-tweak)" ] && ! grep -q nt-stream "$tmp/log"; ok $? "nothing to do the second time"
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
mk MODEL=; [ $? = 2 ] && grep -q 'MODEL is not set' "$tmp/log"; ok $? "no MODEL: $(tail -n 1 "$tmp/log")"

"$PYTHON" $here/makekill.py "$M" "$C" "$tmp/k" "$tmp/first.nts" $L "${NT_KILLS:-50}" "${NT_SEED:-1}" >"$tmp/kills" 2>&1; rc=$?
grep '^#' "$tmp/kills"
ok $rc "$(tail -n 1 "$tmp/kills")"
finish
