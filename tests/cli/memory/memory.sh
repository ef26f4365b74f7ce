# SPDX-License-Identifier: Apache-2.0
# What collect, quantize and tweak hold in block scope, ring and make form: the formula of nt(7), asserted on generated
# models of 2 and 4 layers. Each stage runs under a hard limit (RLIMIT_DATA) and its largest RssAnon is looked at all the
# time. NT_BIG=1: hidden 4096, feed-forward 11008 (a quarter of an hour, 4 GB of disk); else a middle size.
. tests/tap.bash
need_python
nm -D "$(command -v nt-quant)" | grep -q __asan_init && skip_all "the address sanitizer reserves more than any limit"
if [ -n "${NT_BIG:-}" ]; then D=4096 F=11008 H=32; else D=1024 F=2048 H=8; fi
T=128 n=4 hold=1 threads=2
M=$tmp/m C=$tmp/c.nts watch="$PYTHON $PWD/tests/cli/memory/watch.py $tmp"

mib() { echo "$(($1 >> 20)) MiB"; }
boundary() { echo $((4 * $1 * T * D)); }
declare -A formula
# sizes [EXPERTS]: bytes of one layer's float weights (nt-tweak also has them dequantized, and the codes of one linear), its
# statistics, a boundary of so many sequences, the work space of one sequence
sizes() {
    experts=${1:-0}
    local each=$((experts ? experts : 1)) rows=$((experts ? 2 : 1)) rest=$((64 << 20))
    weights=$((4 * (4 * D * D + each * 3 * D * F + experts * D)))
    local statistics=$((4 * (3 * D * D + (experts ? experts * (D * D + F * F) : F * F))))
    local forward=$((4 * T * (3 * D + (2 * F * rows > 4 * D ? 2 * F * rows : 4 * D) + (experts ? 3 * D : 0))))
    local backward=$((4 * T * (3 * D + 2 * D + 4 * D + 2 * D + 3 * F * rows + (experts ? 7 * D : 0))))
    formula=(
        [nt-collect]=$((weights + statistics + $(boundary $((n - hold))) + forward + rest))
        [nt-quant]=$((weights + statistics + rest))
        [nt-tweak]=$((2 * weights + D * F + $(boundary $((n - hold))) + 3 * $(boundary $hold) + backward + rest)))
    for t in "${!formula[@]}"; do echo "$t $((formula[$t] + reserved))"; done >"$tmp/limits"
}
# RLIMIT_DATA counts what is reserved and never touched, too: 128 MiB of OpenBLAS for each thread and once
# more, stacks, the allocator's pools; the same for a model of any size
reserved=$((((threads + 1) * 128 + threads * 16 + 32) << 20))
sizes

make_model() { # LAYERS
    rm -rf "$M"
    "$PYTHON" tests/cli/memory/model.py "$M" "$1" $D $F $H $H $n $T $experts &&
        "$PYTHON" tests/cli/nt-collect/tokens.py "$M/ids.json" $hold "$C"
}
run_ring() {
    local o="--progress none -j $threads -m $M"
    mkfifo "$tmp/fifo"
    $watch nt-collect $o --tokens "$C" --want hessian --acts-in "$tmp/fifo" |
        $watch nt-quant $o -q gptq -b 3 -g 128 --dead borrow |
        $watch nt-tweak $o --tokens "$C" --acts-out "$tmp/fifo" -o "$tmp/q.nts"
    local rc=("${PIPESTATUS[@]}")
    rm "$tmp/fifo"
    [ "${rc[*]}" = "0 0 0" ]
}
run_make() {
    make -s -f pipelines/norm-tweak.mk MODEL="$M" TOKENS="$C" DIR="$tmp/make" THREADS=$threads NT_RUN="$watch" &&
        mv "$tmp/make/q.nts" "$tmp/q.nts" && rm -rf "$tmp/make"
}
peak_of() { awk -v t="$1" '$1 == t && $2 > m { m = $2 } END { printf "%d", m }' "$tmp/peaks"; }

# A peak of some milliseconds may be missed on a busy machine: before one is said to be too low, it is looked for again.
# seen CONDITION RUN...: runs until the condition holds, four times at the most
seen() {
    local condition=$1 i; shift
    for i in 1 2 3 4; do ! $condition || return 0; "$@" >/dev/null 2>&1; done
}
all_held() { # each tool a quarter of a layer at least
    local t
    for t in nt-collect nt-quant nt-tweak; do [ "$(peak_of $t)" -gt $((weights / 4)) ] || return 1; done
}
flat() {
    local t
    for t in nt-collect nt-quant nt-tweak; do [ "${peaks[$t]}" -le $((before[$t] + (16 << 20))) ] || return 1; done
}
again() { # the model of 2 layers
    make_model 2 && rm -f "$tmp/peaks" && run_$1 >/dev/null 2>&1 || return 1
    for t in nt-collect nt-quant nt-tweak; do
        local peak; peak=$(peak_of $t)
        [ "$peak" -le "${before[$t]}" ] || before[$t]=$peak
    done
}
for form in ring make; do
    declare -A before=()
    for layers in 2 4; do
        [ $form$layers = make4 ] && [ -z "${NT_BIG:-}" ] && continue
        make_model $layers || { ok 1 "a model of $layers layers is generated"; finish; }
        rm -f "$tmp/peaks"
        check "$form, $layers layers, under the hard limit" run_$form
        seen all_held run_$form
        declare -A peaks=()
        for t in nt-collect nt-quant nt-tweak; do
            peaks[$t]=$(peak_of $t)
            [ "${peaks[$t]}" -gt $((weights / 4)) ] && [ "${peaks[$t]}" -le "${formula[$t]}" ]
            ok $? "$form, $layers layers: $t held $(mib "${peaks[$t]}"), the formula gives $(mib "${formula[$t]}")"
            [ $layers = 4 ] || before[$t]=${peaks[$t]}
        done
        [ $layers = 4 ] || continue
        seen flat again $form
        for t in nt-collect nt-quant nt-tweak; do
            [ "${peaks[$t]}" -le $((before[$t] + (16 << 20))) ]
            ok $? "$form: $t is flat in depth ($(mib "${before[$t]}") with 2 layers)"
        done
    done
done

# the tools' own predictions, and the refusal that rests on them
nt-collect --progress plain -m "$M" --tokens "$C" --want hessian --layers 0:1 -o "$tmp/s.nts" 2>"$tmp/say.nt-collect"
nt-quant --progress plain -m "$M" -q gptq -b 3 -g 128 --layers 0:1 "$tmp/s.nts" -o "$tmp/q.nts" 2>"$tmp/say.nt-quant"
nt-tweak --progress plain -m "$M" --tokens "$C" --layers 0:1 --acts-out "$tmp/a.nts" "$tmp/q.nts" -o "$tmp/t.nts" 2>"$tmp/say.nt-tweak"
said() { sed -n 's/.*predicted memory \([0-9.]*\) \([MG]\)iB.*/\1 \2/p' "$tmp/say.$1" | awk '{ printf "%d", $1 * ($2 == "G" ? 1024 : 1) * 1048576 }'; }
as_said() { # and what the program itself takes, which counts for little in a real model
    awk -v a="$(said "$1")" -v b="$(peak_of "$1")" 'BEGIN { d = a > b ? a - b : b - a; exit !(d < 0.15 * b + (24 * 1048576)) }'
}
all_as_said() { as_said nt-collect && as_said nt-quant && as_said nt-tweak; }
seen all_as_said run_make
for t in nt-collect nt-quant nt-tweak; do
    as_said $t; ok $? "$t predicts $(mib "$(said $t)"), it held $(mib "$(peak_of $t)")"
done
try "nt-collect refuses to start below it" 75 "max-mem allows" nt-collect --max-mem 16M -m "$M" --tokens "$C" --want hessian -o "$tmp/out.nts"
try "nt-tweak refuses to start below it" 75 "max-mem allows" nt-tweak --max-mem 16M -m "$M" --tokens "$C" "$tmp/q.nts" -o "$tmp/out.nts"
try "nt-quant refuses to start below it" 75 "max-mem allows" nt-quant --max-mem 16M -m "$M" -q gptq -b 3 /dev/null -o "$tmp/out.nts"

# experts: one layer of all of them
[ -n "${NT_BIG:-}" ] || F=512
sizes 8
make_model 2 && rm -f "$tmp/peaks"; check "experts: the ring under the hard limit" run_ring
seen all_held run_ring
for t in nt-collect nt-quant nt-tweak; do
    [ "$(peak_of $t)" -gt $((weights / 4)) ] && [ "$(peak_of $t)" -le "${formula[$t]}" ]
    ok $? "experts: $t held $(mib "$(peak_of $t)"), the formula gives $(mib "${formula[$t]}")"
done
nt-collect --progress plain -m "$M" --tokens "$C" --want hessian --layers 0:1 -o "$tmp/s.nts" 2>"$tmp/say.nt-collect"
nt-quant --progress plain -m "$M" -q gptq -b 3 -g 128 --dead borrow --layers 0:1 "$tmp/s.nts" -o "$tmp/q.nts" 2>"$tmp/say.nt-quant"
nt-tweak --progress plain -m "$M" --tokens "$C" --layers 0:1 --acts-out "$tmp/a.nts" "$tmp/q.nts" -o "$tmp/t.nts" 2>"$tmp/say.nt-tweak"
for t in nt-collect nt-quant nt-tweak; do
    as_said $t; ok $? "experts: $t predicts $(mib "$(said $t)"), it held $(mib "$(peak_of $t)")"
done
finish
