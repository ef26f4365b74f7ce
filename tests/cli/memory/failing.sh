# SPDX-License-Identifier: Apache-2.0
# The k-th allocation fails: exit 71, one sentence, no output. On the tiny model, each tool, 12 values of k spread over the
# run (NT_BIG=1: every k).
. tests/tap.bash
need_python
nm -D "$(command -v nt-quant)" | grep -q __asan_init && skip_all "the address sanitizer has allocators of its own"
cc -shared -fPIC -o "$tmp/failing.so" tests/cli/memory/failing.c -ldl || skip_all "cc cannot make a shared library"
M=$tmp/m
"$PYTHON" tests/cli/ring/model.py "$M" 2 && "$PYTHON" tests/cli/nt-collect/tokens.py "$M/ids.json" 4 "$tmp/c.nts"
q='--progress none -j 2'
with() { FAIL_AT=$1 FAIL_COUNT=$tmp/count LD_PRELOAD=$tmp/failing.so timeout -k 1 200 "${@:2}" </dev/null; }
# every NAME COMMAND...: writes $tmp/out*
every() {
    local name=$1 n k step bad=""; shift
    with 0 "$@" >/dev/null 2>"$tmp/stderr" || { ok 1 "$name runs: $(tail -n 1 "$tmp/stderr")"; return; }
    rm -rf "$tmp"/out*
    n=$(cat "$tmp/count"); step=$(((n + 11) / 12)); [ -z "${NT_BIG:-}" ] || step=1
    for ((k = 1; k <= n; k += step)); do
        with $k "$@" >/dev/null 2>"$tmp/stderr"; rc=$?
        [ $rc = 71 ] && [ "$(grep -c "^$1: out of memory" "$tmp/stderr")" = 1 ] && [ "$(wc -l <"$tmp/stderr")" = 1 ] &&
            ! compgen -G "$tmp/out*" >/dev/null && ! compgen -G "$tmp/.*.nt-*" >/dev/null ||
            bad="$bad $k (exit $rc: $(tail -n 1 "$tmp/stderr" | cut -c 1-80))"
        rm -rf "$tmp"/out* "$tmp"/.*.nt-*
    done
    [ -z "$bad" ]; ok $? "$name: each of $n allocations that fails ends it$bad"
}
every nt-collect nt-collect $q -m "$M" "$tmp/c.nts" -o "$tmp/out.nts"
nt-collect $q -m "$M" "$tmp/c.nts" -o "$tmp/s.nts" 2>/dev/null
every nt-quant nt-quant $q -m "$M" -q gptq -b 3 -g 16 "$tmp/s.nts" -o "$tmp/out.nts"
nt-quant $q -m "$M" -q gptq -b 3 -g 16 "$tmp/s.nts" -o "$tmp/q.nts" 2>/dev/null
every nt-tweak nt-tweak $q -m "$M" --tokens "$tmp/c.nts" "$tmp/q.nts" -o "$tmp/out.nts" --acts-out "$tmp/out.acts"
every "nt-tweak, model scope" nt-tweak $q -m "$M" --tokens "$tmp/c.nts" --scope model --steps 2 --batch 2 --seq 8 "$tmp/q.nts" -o "$tmp/out.nts"
every nt-eval nt-eval $q -m "$M" --qweights "$tmp/q.nts" --tokens "$tmp/c.nts" --ref "$M"
every nt-pack nt-pack --progress none -m "$M" "$tmp/q.nts" --format hf -o "$tmp/out"
every nt-stream nt-stream cat "$tmp/q.nts" -o "$tmp/out.nts"
# OpenBLAS itself would try for ever; it is asked first.
for mib in 16 64 200; do
    (ulimit -d $((mib << 10)); exec timeout -k 1 200 nt-collect $q -m "$M" "$tmp/c.nts" -o "$tmp/out.nts") 2>"$tmp/stderr"; rc=$?
    [ $rc = 71 ] && [ "$(wc -l <"$tmp/stderr")" = 1 ] && grep -q '^nt-collect: out of memory' "$tmp/stderr" && [ ! -e "$tmp/out.nts" ]
    ok $? "nt-collect ends with a sentence under a limit of $mib MiB (exit $rc: $(head -n 1 "$tmp/stderr" | cut -c 1-80))"
done
finish
