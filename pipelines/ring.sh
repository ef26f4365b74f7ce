#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The quantized stream in one line: three processes around a FIFO, as nt(7) draws them.
#
#   ring.sh MODEL TOKENS.nts Q.nts [OPTIONS of nt-quant [-- OPTIONS of nt-tweak]]
#   ring.sh model.gguf calib.nts q.nts -q gptq -b 3 -g 128 -- --loss nmse --lr 1e-3
#
# Without options of nt-quant: -q gptq -b 3 -g 128. COLLECT_OPTS in the environment holds more options of nt-collect.
# When a stage dies all end and Q.nts does not appear. Exit status: of a stage that was killed (128 + signal), else of one
# that ended with 2, 71 or 75, else nt-tweak's, which hears of what befell the others.
set -u -o pipefail
[ $# -ge 3 ] || { sed -n '/^# The quant/,/^set/{s/^# \{0,1\}//;/^set/d;p}' "$0" >&2; exit 2; }
model=$1 tokens=$2 out=$3
shift 3
quant=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do quant+=("$1"); shift; done
[ $# = 0 ] || shift
[ ${#quant[@]} -gt 0 ] || quant=(-q gptq -b 3 -g 128)
needs=$(nt-quant "${quant[@]}" --needs) || exit

dir=$(mktemp -d) || exit
pipeline=
end() { # STATUS: whatever still runs is told to stop
    trap '' INT TERM HUP
    [ -z "$pipeline" ] || kill -TERM -- "-$pipeline" 2>/dev/null && wait
    exit "$1"
}
trap 'rm -rf "$dir"' EXIT
trap 'end 143' TERM HUP
trap 'end 130' INT

common=(-m "$model")
ring() {
    trap : INT TERM HUP # it stays until its stages have ended
    local status rc
    if [ -z "$needs" ]; then # nothing to collect, nothing to go round
        nt-quant "${common[@]}" "${quant[@]}" |
            nt-tweak "${common[@]}" --tokens "$tokens" "$@" -o "$out"
        status=("${PIPESTATUS[@]}")
    else
        mkfifo "$dir/ring" || return 74
        # shellcheck disable=SC2086
        nt-collect "${common[@]}" ${COLLECT_OPTS:-} --tokens "$tokens" --want "$needs,targets" --acts-in "$dir/ring" |
            nt-quant "${common[@]}" "${quant[@]}" |
            nt-tweak "${common[@]}" --tokens "$tokens" "$@" --acts-out "$dir/ring" -o "$out"
        status=("${PIPESTATUS[@]}")
    fi
    for rc in "${status[@]}"; do [ "$rc" -lt 128 ] || return "$rc"; done
    for rc in "${status[@]}"; do case $rc in 2 | 71 | 75) return "$rc";; esac; done
    return "$rc"
}
set -m # a process group of its own, so that all of it can be stopped
ring "$@" </dev/null &
pipeline=$!
set +m
wait "$pipeline"
rc=$?
pipeline=
exit "$rc"
