# SPDX-License-Identifier: Apache-2.0
# Sourced by layouts.sh, other.sh and reencode.sh: checkpoints that a Python file of this directory makes, each beside the float
# model that it stands for, imported. $1: that file, which lay runs.
. tests/tap.bash
export OMP_NUM_THREADS=1 # many short runs
"$PYTHON" -c 'import numpy' 2>/dev/null || skip_all "$PYTHON lacks numpy"
maker=tests/cli/import/$1
lay() { "$PYTHON" "$maker" "$@"; }

verdicts() { # WHAT: lines "KIND FROM TO SUFFIX..." on stdin
    lay compare-all "$tmp" >"$tmp/verdicts"
    while read -r kind rest; do [ "$rest" = ok ]; ok $? "$kind: $1${rest#ok}"; done <"$tmp/verdicts"
}
import() { # CKPT: its stream, beside it
    nt-quant -q import "$1" -o "$1.nts" --progress none 2>"$tmp/stderr" || cat "$tmp/stderr"
}
values() { # CKPT TO: of its stream, as floats
    nt-pack -m "$1" --format hf --dtype f32 "$1.nts" -o "$2" --progress none 2>"$tmp/stderr" || cat "$tmp/stderr"
}
import_all() { # all kinds, into $kinds and $tmp/KIND/{q,f}: they have the values of the float model
    lay all "$tmp"; ok $? "checkpoints of all kinds are made"
    kinds=$(lay kinds)
    for kind in $kinds; do import "$tmp/$kind/q" && values "$tmp/$kind/q" "$tmp/$kind/hf"; done
    verdicts "what import gives has the values of the float model" < <(for kind in $kinds; do echo "$kind hf f"; done)
}
same_all() { # $kinds: from the stream alone, the very files
    for kind in $kinds; do
        local d="$tmp/$kind"
        nt-pack --format same "$d/q.nts" -o "$d/same" --progress none 2>"$tmp/stderr" && diff -rx nt-norms.json "$d/q" "$d/same" >>"$tmp/stderr"
        ok $? "$kind: --format same gives the checkpoint byte by byte$(sed 's/^/: /' "$tmp/stderr")"
        rm -rf "$d/same"
    done
}
same_logits() { # KIND: of the directory as it lies, and of the float model
    local d="$tmp/$1"
    nt-eval -m "$d/q" --ids "$d/ids.json" --dump logits -o "$d/q.logits" --progress none &&
        nt-eval -m "$d/f" --ids "$d/ids.json" --dump logits -o "$d/f.logits" --progress none &&
        cmp "$d/q.logits" "$d/f.logits"
}
