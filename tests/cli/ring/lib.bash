# SPDX-License-Identifier: Apache-2.0
# Shared by the tests of the quantized stream: a tiny model of L layers and its tokens.
# NT_KILLS=50 gives make.sh and kill.sh their full form (8 kills otherwise); NT_SEED chooses the moments.
. tests/tap.bash
here=tests/cli/ring
need_python
M=$tmp/m C=$tmp/c.nts q='--progress none'
make_model() { # LAYERS [SEED]
    "$PYTHON" $here/model.py "$M" "$@" && "$PYTHON" tests/cli/nt-collect/tokens.py "$M/ids.json" 4 "$C"
}
py() { "$PYTHON" $here/ring.py "$@"; }
# ring THREADS OUT [OPTIONS of nt-tweak]: the three stages around $tmp/ring; statuses in the array `rc`
ring() {
    local j=$1 out=$2; shift 2
    rm -f "$tmp/ring"; mkfifo "$tmp/ring"
    nt-collect $q -j "$j" -m "$M" --tokens "$C" --want hessian,targets --acts-in "$tmp/ring" 2>"$tmp/err1" |
        nt-quant $q -j "$j" -m "$M" -q gptq -b 3 -g 16 2>"$tmp/err2" |
        nt-tweak $q -j "$j" -m "$M" --tokens "$C" --acts-out "$tmp/ring" "$@" -o "$out" 2>"$tmp/err3"
    rc=("${PIPESTATUS[@]}")
}
# by_layer DIR [OPTIONS of nt-tweak]: one run per layer, boundaries in files
by_layer() {
    local dir=$1 l n in; shift
    mkdir -p "$dir"
    for ((l = 0; l < L; l++)); do
        n=$((l + 1)) in=()
        [ $l = 0 ] || in=(--acts-in "$dir/acts.$l")
        nt-collect $q -m "$M" --tokens "$C" --want hessian,targets "${in[@]}" --layers $l:$n -o "$dir/stats.$l" &&
            nt-quant $q -m "$M" -q gptq -b 3 -g 16 --layers $l:$n "$dir/stats.$l" -o "$dir/quant.$l" &&
            nt-tweak $q -m "$M" --tokens "$C" "${in[@]}" --acts-out "$dir/acts.$n" --layers $l:$n "$@" \
                "$dir/quant.$l" -o "$dir/q.$l" 2>"$dir/err.$l" || return 1
    done
}
# recipe [VARIABLES AND TARGETS of norm-tweak.mk]: what it says in $tmp/log, what it ran in $tmp/ran
printf '#!/bin/sh\necho "$*" >>%s\nexec "$@"\n' "$tmp/ran" >"$tmp/run"; chmod +x "$tmp/run"
recipe() {
    : >"$tmp/ran"
    "${MAKE:-make}" --no-print-directory -s -f pipelines/norm-tweak.mk NT_RUN="$tmp/run" "$@" >"$tmp/log" 2>&1
}
# ran TOOL: for which layers the last recipe ran it
ran() { sed -n "s/^$1 .*--layers \([0-9]*\):.*/\1/p" "$tmp/ran" | tr '\n' ' ' | sed 's/ $//'; }
