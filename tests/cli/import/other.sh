# SPDX-License-Identifier: Apache-2.0
# Checkpoints of bitsandbytes, HQQ, ModelOpt and fbgemm: as models and by -q import they have the values of the float model that
# they stand for (other.py computes it from the codes); norms go into them; methods that are not read are refused by name.
. tests/cli/import/lib.bash other.py
import_all

logits() { # KIND: of the directory as it lies, and of the imported stream
    local d="$tmp/$1"
    same_logits "$1" &&
        nt-eval -m "$d/q" --qweights "$d/q.nts" --ids "$d/ids.json" --dump logits -o "$d/i.logits" --progress none &&
        cmp "$d/i.logits" "$d/f.logits"
}
for kind in nf4-double int8 hqq3 hqq1 hqq4-across modelopt-nvfp4; do check "$kind: the logits of the float model" logits "$kind"; done

# ---- the checkpoint again, from its stream alone ----

same_all

# ---- norms into them: every byte but the norms' stays ----

need_python
norms() { # KIND
    local d="$tmp/$1" oracle="$PYTHON tests/cli/nt-pack/oracle.py"
    $oracle retune "$d/q.nts" "$d/t.nts" positive new &&
        nt-pack "$d/t.nts" --norms-into "$d/q" -o "$d/n" --progress none &&
        $oracle norms "$d/t.nts" "$d/q/model.safetensors" "$d/n/model.safetensors" new &&
        nt-pack "$d/t.nts" --format same -o "$d/s" --progress none && cmp "$d/n/model.safetensors" "$d/s/model.safetensors" &&
        cmp "$d/q/config.json" "$d/n/config.json" &&
        nt-pack -m "$d/q" "$d/t.nts" --format overlay -o "$d/o.safetensors" --progress none &&
        nt-pack --apply "$d/o.safetensors" -m "$d/q" -o "$d/a" --progress none && cmp "$d/a/model.safetensors" "$d/n/model.safetensors"
}
for kind in nf4-double fp4 int8 hqq4 hqq3-across hqq4-bare modelopt-nvfp4 fbgemm; do check "$kind: norms into it, and by an overlay" norms "$kind"; done

# ---- methods and versions that are not read ----

method() { # the text of quantization_config, a pattern
    "$PYTHON" - "$tmp/nf4/f/config.json" "$tmp/m/config.json" "$1" <<'END'
import json, sys
json.dump({**json.load(open(sys.argv[1])), "quantization_config": json.loads(sys.argv[3])}, open(sys.argv[2], "w"))
END
    try "$1 is refused" 65 "$2" nt-eval -m "$tmp/m" --ids "$tmp/nf4/ids.json" --dump logits -o "$tmp/out" --progress none
}
mkdir "$tmp/m" && cp "$tmp/nf4/f/model.safetensors" "$tmp/m"
known='awq, bitsandbytes, compressed-tensors, fp8, gptq, auto-round, hqq, modelopt, fbgemm_fp8'
for m in aqlm vptq quip spqr higgs torchao quanto eetq quark bitnet mxfp4 exl3; do
    method "{\"quant_method\": \"$m\"}" "quant_method $m are not supported; those of $known are\$"
done
for v in gemv gemv_fast marlin; do method "{\"quant_method\": \"awq\", \"version\": \"$v\"}" "AWQ weights of version $v are not supported"; done
method '{"quant_method": "gptq", "checkpoint_format": "marlin"}' 'GPTQ weights in the form marlin are not supported'
method '{"quant_method": "auto-round", "packing_format": "auto_round:fp8"}' 'form auto_round:fp8 are not supported'
method '{"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}' 'ModelOpt weights of W4A8_AWQ are not supported'
finish
