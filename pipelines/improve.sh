#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A better copy of a finished quantized checkpoint: every byte is the same but those of its norms, which are trained through
# the whole model against the float model that it was made of.
#   improve.sh FLOAT CKPT TOKENS.nts NEW [OPTION of nt-tweak]...
# FLOAT and CKPT are anything that nt.7 lists, of one configuration; TOKENS is text that neither the quantizer saw nor you
# will measure on. The norms' type in CKPT, to which they are rounded while they are trained, is looked up there; NORM_DTYPE
# overrules it. Exit 1, and no NEW, if the norms do not lower the divergence on the held-out sequences.
set -euo pipefail
[ $# -ge 4 ] || { sed -n '3,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
float=$1 ckpt=$2 tokens=$3 new=$4
shift 4
[ ! -e "$new" ] || { echo "improve.sh: $new is there already" >&2; exit 74; }
norm_dtype() { # of a norm that the header of a safetensors file names; GGUF files have F32
    local f=$ckpt
    if [ -d "$ckpt" ]; then
        for f in "$ckpt"/*.safetensors; do break; done
    fi
    case $(head -c 20000000 "$f" | grep -a -o -m 1 'norm[a-z_]*\.weight": *{"dtype": *"[A-Z0-9]*"' | head -n 1) in
    *'"BF16"') echo bf16 ;;
    *'"F16"') echo f16 ;;
    *) echo f32 ;;
    esac
}
dtype=${NORM_DTYPE:-$(norm_dtype || true)}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
status=0
nt-quant -q import "$ckpt" |
    nt-tweak -m "$float" --tokens "$tokens" --scope model --norm-dtype "$dtype" --require-gain "$@" -o "$tmp/q.nts" || status=$?
[ $status -ne 1 ] || echo "improve.sh: no gain on the held-out sequences; $new is not written" >&2
[ $status -eq 0 ] || exit $status
nt-pack --norms-into "$ckpt" "$tmp/q.nts" -o "$new"
