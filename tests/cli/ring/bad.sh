# SPDX-License-Identifier: Apache-2.0
# What the quantized stream refuses, in one sentence: boundaries of other models, tokens and options, cut or incomplete ones.
. tests/cli/ring/lib.bash
L=4
make_model $L || exit 1
by_layer "$tmp/f" || exit 1
A=$tmp/f/acts.2 Q=$tmp/f/quant.2
collect() { nt-collect $q -m "$M" --tokens "$C" --want hessian,targets --layers 2:3 -o "$tmp/out" "$@"; }
tweak() { nt-tweak $q -m "$M" --tokens "$C" --layers 2:3 -o "$tmp/out" "$@" "$Q"; }

collect --acts-in "$A" && cmp -s "$tmp/out" "$tmp/f/stats.2"; ok $? "layer 2 again: the same bytes"; rm -f "$tmp/out"
tweak --acts-in "$A" 2>/dev/null && cmp -s "$tmp/out" "$tmp/f/q.2"; ok $? "its tweak, too"; rm -f "$tmp/out"

(M=$tmp/other; "$PYTHON" $here/model.py "$M" $L 7)
"$PYTHON" tests/cli/nt-collect/tokens.py "$M/ids.json" 3 "$tmp/c3.nts"
for stage in collect tweak; do
    try "nt-$stage: other tokens" 65 'acts.2 was made from other tokens' $stage --tokens "$tmp/c3.nts" --acts-in "$A"
    try "nt-$stage: the wrong boundary, too early" 65 'acts.1: ends before the input of layer 2' $stage --acts-in "$tmp/f/acts.1"
    try "nt-$stage: the wrong boundary, too late" 65 'acts.3: the input of layer 3 comes where that of layer 2' $stage --acts-in "$tmp/f/acts.3"
    head -c 9000 "$A" >"$tmp/cut"
    try "nt-$stage: a cut boundary" 65 'cut: record .*truncated after 9000 bytes' $stage --acts-in "$tmp/cut"
    try "nt-$stage: not a boundary" 65 'c.nts: holds tokens where acts are wanted' $stage --acts-in "$C"
    try "nt-$stage: no such file" 74 'nosuch: No such file' $stage --acts-in "$tmp/nosuch"
done
try "nt-collect: another model" 65 'acts.2 was made from another model' collect -m "$tmp/other" --acts-in "$A"
try "nt-tweak: codes of another model" 65 'quant.2 was made from another model' tweak -m "$tmp/other" --acts-in "$A"
for option in '--lr 3e-4' '--iters 2' '--target float' '--loss nmse'; do
    try "nt-tweak: another $option" 65 "acts.2 was made with other options than this run: '[a-z_]*' differs" tweak $option --acts-in "$A"
done
nt-quant $q -m "$M" -q gptq -b 4 -g 16 --layers 2:3 "$tmp/f/stats.2" -o "$tmp/b4"
Q=$tmp/b4 try "nt-tweak: codes made with other options" 65 "acts.2 was made with other options than this run: 'bits'" tweak --acts-in "$A"
try "nt-tweak: layer 0 has no boundary" 2 'the input of layer 0 comes from the tokens' tweak --layers 0:1 --acts-in "$A"
try "nt-tweak: a start in the middle without a boundary" 2 'acts-in must give its input' tweak --acts-out "$tmp/out.acts"
try "nt-tweak: more layers than the stream has" 65 'ends before layer 3' tweak --layers 2:4 --acts-in "$A"
try "nt-tweak: fewer" 65 'layer 2 comes where layer 1 is due' tweak --layers 1:2 --acts-in "$tmp/f/acts.1"
nt-stream cat "$tmp"/f/quant.? -o "$tmp/all"
Q=$tmp/all try "nt-tweak: a stream with more layers" 65 'layer 1 comes after the layers of this run' \
    nt-tweak $q -m "$M" --tokens "$C" --layers 0:1 --acts-out "$tmp/out.acts" -o "$tmp/out" "$tmp/all"
try "nt-tweak: --require-gain before the last layer" 2 'the verdict comes with the last layer' tweak --require-gain --acts-in "$A"
try "nt-tweak: --acts-out into a missing directory" 74 'cannot create' tweak --acts-in "$A" --acts-out "$tmp/no/where"
if [ -w /dev/full ]; then
    try "nt-tweak: --acts-out to a full device" 74 '/dev/full: No space left' tweak --acts-in "$A" --acts-out /dev/full
fi
mkfifo "$tmp/fifo"
alone() { : | nt-tweak $q -m "$M" --tokens "$C" -o "$tmp/out" --acts-out "$tmp/fifo"; }
try "nt-tweak: a ring that nobody reads, stdin gone" 65 'fifo: waiting for its reader: <stdin>: empty' alone
# a stdin that is whole is kept until a reader comes; three layers fit into a pipe
(soon [ -e "$tmp/written" ]; cat "$tmp/fifo" >"$tmp/kept") &
{ nt-stream cat "$tmp"/f/quant.[0-2]; : >"$tmp/written"; } | nt-tweak $q -m "$M" --tokens "$C" --layers 0:3 -o "$tmp/whole" --acts-out "$tmp/fifo" 2>"$tmp/stderr"
rc=$?; wait
[ $rc = 0 ] && py same "$tmp/whole" "$tmp"/f/q.[0-2] >"$tmp/py" 2>&1; ok $? "nt-quant done before the ring is read: nothing is lost $(tail -n 1 "$tmp/stderr")"
py same "$tmp/kept" "$tmp"/f/acts.[1-3] >"$tmp/py" 2>&1; ok $? "and the boundaries arrive ($(tail -n 1 "$tmp/py"))"
finish
