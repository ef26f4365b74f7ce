#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checkpoints of the embedded model that other projects' quantizers write: nt-eval finds the likelihoods that their own
# loaders do, within 0.1 %, and an imported stream packs to the very tensors. With the interop packages that is mlx-lm;
# NT_FOREIGN_PYTHON names a Python that has GPTQModel, AutoRound and llm-compressor, too (foreign.txt): ten minutes more.
# NT_FOREIGN_TOOLS chooses some of them.
. tests/interop/lib.bash
need NT_INTEROP_PYTHON
run() { "${NT_FOREIGN_PYTHON:-$NT_INTEROP_PYTHON}" tests/interop/foreign.py "$@"; }
story=$O/tests/data/embedded/story q="--progress none"
[ -x "$story" ] || skip_all "make $story first"
"${NT_FOREIGN_PYTHON:-$NT_INTEROP_PYTHON}" -c 'import mlx_lm' 2>/dev/null || skip_all "the package mlx-lm is not installed"
"$story" -s 7 -n 60000 >"$tmp/text"
"$story" -s 8 -n 120000 >"$tmp/prose" # not what the quantizers see
check "a directory for transformers" run model tests/data/embedded "$tmp/m"
nt-gen-calib $q -m "$tmp/m" --encode <<<"$("$NT_INTEROP_PYTHON" -c 'import json, sys; print(json.dumps(open(sys.argv[1]).read()[-12000:]))' "$tmp/text")" \
    >"$tmp/all" && "$NT_INTEROP_PYTHON" -c 'import json, sys
ids = json.load(open(sys.argv[1])); print(json.dumps([ids[256 * i:256 * (i + 1)] for i in range(4)]))' "$tmp/all" >"$tmp/ids"
ok $? "four sequences"

same_nll() { # DIR LINE-OF-THEIRS
    nt-eval $q -m "$1" --ids "$tmp/ids" --dump nll -o "$tmp/nll" 2>"$tmp/stderr" || { cat "$tmp/stderr"; return 1; }
    "$NT_INTEROP_PYTHON" - "$tmp/nll" $2 <<'P'
import sys
from safetensors.numpy import load_file
ours, theirs = load_file(sys.argv[1])["nll"], [float(x) for x in sys.argv[3:]]
worst = max(abs(a - b) / b for a, b in zip(ours, theirs, strict=True))
print("# largest difference of -log p: %.1e" % worst)
sys.exit(not worst < 1e-3)
P
}
tool() { # TOOL SUFFIXES KIND...: tensors with these suffixes come back
    local t=$1 suffixes=$2 kind format dtype; shift 2
    mkdir "$tmp/$t"
    run make "$t" "$tmp/m" "$tmp/text" "$tmp/$t" "$@" >"$tmp/$t.log" 2>&1
    run nll "$t" "$tmp/m" "$tmp/ids" "${@/#/$tmp/$t/}" 2>>"$tmp/$t.log" | grep "^$tmp/$t/" >"$tmp/$t.nll"
    for kind in "$@"; do
        [ -d "$tmp/$t/$kind" ]; ok $? "$t writes $kind"
        same_nll "$tmp/$t/$kind" "$(grep "^$tmp/$t/$kind " "$tmp/$t.nll")"; ok $? "$t $kind: the likelihoods of its own loader"
        again "$tmp/$t/$kind"; ok $? "$t $kind: --format same gives it back byte by byte"
        case $kind in *mxfp* | *nvfp* | fp8) continue ;; esac # no other format of ours
        read -r format dtype < <(run layout "$tmp/$t/$kind")
        nt-quant $q -q import "$tmp/$t/$kind" 2>"$tmp/stderr" |
            nt-pack $q -m "$tmp/$t/$kind" --format "$format" --dtype "$dtype" -o "$tmp/$t/$kind.back" 2>"$tmp/stderr" || cat "$tmp/stderr"
        run same "$suffixes" "$tmp/$t/$kind" "$tmp/$t/$kind.back"; ok $? "$t $kind: the imported codes come back as $format"
    done
}
# OPTIONS of nt-quant -> FORMAT: LOADER's project computes what nt-eval does with what nt-pack writes
ours() { # LOADER NAME FORMAT OPTION...
    local d=$tmp/ours/$2
    mkdir -p "$tmp/ours"
    nt-quant $q -m "$tmp/m" -q rtn "${@:4}" 2>"$tmp/stderr" | nt-pack $q -m "$tmp/m" --format "$3" -o "$d" 2>"$tmp/stderr" || cat "$tmp/stderr"
    run nll "$1" "$tmp/m" "$tmp/ids" "$d" 2>>"$tmp/ours.log" | grep "^$d " >"$tmp/ours.nll"
    same_nll "$d" "$(cat "$tmp/ours.nll")"; ok $? "$1: our $2 as $3 has the same likelihoods"
}
improved() { # TOOL KIND...: improve.sh finds something to gain, and the norms are all that differs
    local t=$1 kind from to; shift
    check "$t: tokens" nt-gen-calib $q -m "$tmp/m" --scheme text --text "$tmp/prose" -n 60 -T 256 -o "$tmp/calib.nts"
    for kind in "$@"; do
        from=$tmp/$t/$kind to=$tmp/$t/$kind.better
        check "$t $kind: improved" pipelines/improve.sh "$tmp/m" "$from" "$tmp/calib.nts" "$to" $q --final-norm --steps 16 --batch 4 \
            --warmup 2 --lr 5e-4 --eval-every 4
        "$NT_INTEROP_PYTHON" - "$from" "$to" <<'P'
import sys
from safetensors import safe_open
one, two = (safe_open(d + "/model.safetensors", "pt") for d in sys.argv[1:])
differ = [k for k in one.keys() if not one.get_tensor(k).equal(two.get_tensor(k))]
sys.exit(not differ or any("norm" not in k for k in differ))
P
        ok $? "$t $kind: norms alone differ"
    done
}
wanted() { [[ " ${NT_FOREIGN_TOOLS:-mlx gptqmodel autoround llmcompressor} " == *" $1 "* ]]; }
if "${NT_FOREIGN_PYTHON:-$NT_INTEROP_PYTHON}" -c 'import compressed_tensors' 2>/dev/null; then # by way of transformers
    ours llmcompressor ct4 compressed-tensors -b 4 -g 64 --sym
    ours llmcompressor ct3 compressed-tensors -b 3 -g 64 --sym
    ours llmcompressor ct8 compressed-tensors -b 8 -g 0 --sym
    ours llmcompressor ct4-asym compressed-tensors -b 4 -g 32
fi
ours mlx mlx4 mlx -b 4 -g 64
! wanted mlx || tool mlx proj.weight,proj.scales,proj.biases w4-64 w2-32 w3-64-bfloat16 mixed mxfp4 nvfp4 mxfp8
if [ -n "${NT_FOREIGN_PYTHON:-}" ]; then
    if wanted gptqmodel; then
        ours gptqmodel w4-sym gptq -b 4 -g 64 --sym
        ours gptqmodel w3-sym gptq -b 3 -g 128 --sym
        ours gptqmodel w8-sym gptq -b 8 -g 0 --sym
        ours gptqmodel w4-asym gptq-v2 -b 4 -g 64
        ours gptqmodel w2-asym gptq-v2 -b 2 -g 32
        ours gptqmodel w4-awq awq -b 4 -g 64
        tool gptqmodel .qweight,.qzeros,.scales,.g_idx w2 w3 w4-asym w4-order awq
    fi
    ! wanted autoround || tool autoround .qweight,.qzeros,.scales w2-rtn w4-asym-rtn w8-rtn w4-gptq-rtn w4-awq-rtn
    if wanted llmcompressor; then
        tool llmcompressor .weight_packed,.weight_scale w3 w4 w4-asym w8 fp8 nvfp4
        improved llmcompressor w4-asym fp8 nvfp4
    fi
fi
finish
