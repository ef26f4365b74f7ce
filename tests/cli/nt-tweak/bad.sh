# SPDX-License-Identifier: Apache-2.0
# Bad input to nt-tweak: one sentence, the exit code, no partial file.
. tests/cli/nt-tweak/lib.bash
q=$tmp/q.nts c=$tmp/c.nts
tweak() { nt-tweak --progress none -m $M --tokens "$c" -o "$tmp/out.nts" "$@"; }

# usage
try "no model" 2 'nt-tweak: -m MODEL' nt-tweak --tokens "$c" "$q"
try "no tokens option" 2 'tokens FILE is needed' nt-tweak -m $M "$q"
try "unknown loss" 2 "'huber' is not known" tweak --loss huber "$q"
try "another scope" 2 "scope: 'blocks:2' is not available" tweak --scope blocks:2 "$q"
try "other parameters" 2 "params: 'lora' is not available in block scope" tweak --params lora "$q"
try "unknown option" 2 'frobnicate' tweak --frobnicate "$q"
try "a step of the closed form" 2 'norms-step: the closed form takes no steps' tweak --opt closed-form --norms-step relative "$q"
try "another kind of step" 2 "norms-step" tweak --norms-step large "$q"
try "layers beyond the model" 2 'the model has 2 layers' tweak --layers 5:6 "$q"
try "two streams" 2 'one qweights stream' tweak "$q" "$q"

# the qweights stream
nt-quant --progress none -m tests/data/model/llama3 -q rtn -b 3 -g 16 -o "$tmp/other.nts"
try "qweights of another model" 65 'other.nts' tweak "$tmp/other.nts"
nt-quant --progress none -m $M -q rtn -b 3 -g 16 --layers 1:2 -o "$tmp/tail.nts"
try "first layer missing" 65 'layer 1 comes where layer 0 is due' tweak "$tmp/tail.nts"
nt-quant --progress none -m $M -q rtn -b 3 -g 16 --layers 0:1 -o "$tmp/head.nts"
try "last layer missing" 65 'ends before layer 1' tweak "$tmp/head.nts"
cat "$q" "$tmp/tail.nts" >"$tmp/more.nts"
try "a layer too many" 65 'more.nts' tweak "$tmp/more.nts"
size=$(stat -c %s "$q")
for cut in 0 9 300 5000 $((size / 2)) $((size - 1)); do
    head -c "$cut" "$q" >"$tmp/cut.nts"
    try "truncated to $cut bytes" 65 'cut.nts' tweak "$tmp/cut.nts"
done
cp "$q" "$tmp/flip.nts"
printf '\377' | dd of="$tmp/flip.nts" bs=1 seek=$((size / 3)) conv=notrunc status=none
try "a flipped byte" 65 'flip.nts' tweak "$tmp/flip.nts"
nt-tweak --progress none -m $M --tokens "$c" -o "$tmp/done.nts" "$q" 2>/dev/null
try "tweaked already" 65 'tweaked already' tweak "$tmp/done.nts"
try "no such stream" 74 'nowhere.nts' tweak "$tmp/nowhere.nts"
try "a tokens stream as qweights" 65 'tokens' tweak "$c"
upstream() { { nt-quant --progress none -m $M -q gptq -b 3 "$tmp/nostats.nts" || true; } 2>/dev/null | tweak; }
nt-collect --progress none -m $M "$c" 2>/dev/null | head -c 9000 >"$tmp/nostats.nts"
rm -f "$tmp/out.nts"
upstream >"$tmp/stdout" 2>"$tmp/stderr"; rc=$?
[ $rc = 65 ] && grep -q 'nostats.nts' "$tmp/stderr" && [ ! -e "$tmp/out.nts" ]
ok $? "an upstream failure travels down the pipe (exit $rc: $(tail -n 1 "$tmp/stderr" | cut -c 1-150))"

mkfifo "$tmp/fifo"; exec 3<>"$tmp/fifo"
nt-tweak --progress plain -m $M --tokens "$c" -o "$tmp/out.nts" "$tmp/fifo" 2>"$tmp/stderr" 3>&- & pid=$!
head -c 5000 "$q" >&3
soon grep -q memory "$tmp/stderr"
kill -TERM $pid; wait $pid; rc=$?
exec 3>&-
[ $rc = 143 ] && [ -z "$(ls "$tmp" | grep '^out')" ]; ok $? "SIGTERM while waiting for a layer: exit 143, no file (exit $rc)"

# the tokens
try "no such tokens" 74 'nowhere.nts' nt-tweak -m $M --tokens "$tmp/nowhere.nts" -o "$tmp/out.nts" "$q"
: >"$tmp/empty.nts"
try "empty tokens" 65 'empty' nt-tweak -m $M --tokens "$tmp/empty.nts" -o "$tmp/out.nts" "$q"
try "qweights as tokens" 65 'qweights' nt-tweak -m $M --tokens "$q" -o "$tmp/out.nts" "$q"
echo '[[1, 2, 3, 96], [1, 2, 3, 4]]' >"$tmp/ids.json"; tokens "$tmp/ids.json" 1 "$tmp/vocab.nts"
try "tokens of another vocabulary" 65 'vocab.nts.*96' nt-tweak -m $M --tokens "$tmp/vocab.nts" -o "$tmp/out.nts" "$q"
tokens tests/data/collect/ids.json 10 "$tmp/held.nts"
try "held-out sequences only" 65 'no training sequences' nt-tweak -m $M --tokens "$tmp/held.nts" -o "$tmp/out.nts" "$q"
try "nothing left for the loss" 65 'fewer than 2' tweak --skip-first 11 "$q"

# memory, disk
try "more memory than allowed" 75 'memory' tweak --max-mem 100K "$q"
try "a full disk" 74 '/dev/full' nt-tweak --progress none -m $M --tokens "$c" -o /dev/full "$q"
full() { nt-tweak --progress none -m $M --tokens "$c" "$q" >/dev/full; }
try "a full stdout" 74 'stdout' full
try "a full disk for the report" 74 '/dev/full' tweak --report /dev/full "$q"
finish
