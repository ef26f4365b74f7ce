# SPDX-License-Identifier: Apache-2.0
# Models whose files hold several linears in a tensor, or as [in, out], leave in every format that can hold them: as a model
# the result computes what the stream does, and its codes are the values of the directory of floats, which transformers
# loads (tests/interop/families.sh).
. tests/tap.bash
need_python
q="--progress none"
py() { "$PYTHON" tests/cli/families/fused.py "$@"; }
seen() { # KIND NAME FLOATS PATH: to be compared
    nt-eval $q -m "$4" --ids "$m.ids" --dump logits -o "$4-dump" && echo "$1 $2 $3 $4 $t.ours $4-dump" >>"$tmp/pairs"
}
begin() { # NAME RUN OPTION...: a stream, its logits, the directory of floats
    m=$tmp/$1 t=$tmp/$1-$2
    nt-quant $q -m "$m" -q rtn -g 32 "${@:3}" -o "$t.nts" &&
        nt-eval $q -m "$m" --qweights "$t.nts" --ids "$m.ids" --dump logits -o "$t.ours" &&
        nt-pack $q -m "$m" "$t.nts" --format hf --dtype f32 -o "$t.hf"
}
codes() { # FORMAT LAYOUT
    nt-pack $q -m "$m" "$t.nts" --format "$1" --dtype f16 -o "$t.$2" && seen "$2" "${m##*/}" "$t.hf" "$t.$2"
}
file() { # NAME
    nt-pack $q -m "$m" "$t.nts" --format gguf --like "$m.gguf" -o "$t.gguf" && seen gguf "$1" "${t/chatglm/glm}.hf" "$t.gguf"
}

again() { # PATH: from the imported stream alone, the same bytes
    nt-quant $q -q import "$1" -o "$t.again.nts" && nt-pack $q --format same "$t.again.nts" -o "$t.again" && diff -rx nt-norms.json "$1" "$t.again"
    local rc=$?
    rm -rf "$t.again"
    return $rc
}

py make "$tmp" >"$tmp/names"; ok $? "models are made"
while read -r name; do
    check "$name: W4 g32 symmetric" begin "$name" w4 -b 4 --sym
    for f in gptq:gptq compressed-tensors:ct awq:awq mlx:mlx; do
        case $name:$f in
        gpt2:comp* | gpt2:mlx*)
            try "$name: no ${f%:*}" 65 'c_attn.weight lies as \[in, out\]' nt-pack $q -m "$m" "$t.nts" --format "${f%:*}" -o "$tmp/out" ;;
        *) check "$name: ${f%:*}" codes ${f%:*} ${f#*:} ;;
        esac
    done
    check "$name: gguf" file "$name"
    for made in "$m" "$t.gptq" "$t.gguf"; do check "${made##*/}: --format same" again "$made"; done
    [ "$name" = glm ] || # GGUF's name for it is chatglm
        check "$name: gguf, the template itself as the model" \
            nt-pack $q -m "$m.gguf" "$t.nts" --format gguf -o "$t.2.gguf"
    case $name in mixtral | qwen2-moe)
        nt-quant $q -q import "$t.gguf" -o "$t.i.nts" 2>"$tmp/stderr" && nt-pack $q -m "$t.gguf" "$t.i.nts" --format gguf -o "$t.i.gguf"
        ok $? "$name: imported from GGUF"
        cmp "$t.gguf" "$t.i.gguf"; ok $? "$name: as it was" ;;
    gpt2 | gpt-neox | falcon-40b | phi3)
        check "$name: W3 g32" begin "$name" w3 -b 3
        check "$name: W3 as gptq" codes gptq gptq
        nt-quant $q -q import "$t.gptq" -o "$t.i.nts" 2>"$tmp/stderr" && nt-pack $q -m "$t.gptq" "$t.i.nts" --format hf --dtype f32 -o "$t.i"
        ok $? "$name: imported"
        cmp "$t.hf/model.safetensors" "$t.i/model.safetensors"; ok $? "$name: as it was" ;;
    esac
done <"$tmp/names"

# parts of one tensor with codes of different kinds
printf '*#k rtn 8 32\n' >"$tmp/plan"
name=phi3
begin phi3 mixed -b 4 --sym --plan "$tmp/plan"; ok $? "phi3: k at 8 bits"
try "phi3: mixed bits in a tensor as gptq" 65 'qkv_proj.weight has parts of different bits' nt-pack $q -m "$m" "$t.nts" --format gptq -o "$tmp/out"
try "phi3: mixed bits in a tensor as gguf" 65 'qkv_proj.weight#q has parts of different bits.*--loose' \
    nt-pack $q -m "$m" "$t.nts" --format gguf --like "$m.gguf" -o "$tmp/out"
check "phi3: --loose stores it as floats" nt-pack $q -m "$m" "$t.nts" --format gguf --like "$m.gguf" --loose -o "$t.gguf"
seen loose phi3 - "$t.gguf"
printf '*#k keep\n' >"$tmp/plan"
begin phi3 kept -b 4 --sym --plan "$tmp/plan"; ok $? "phi3: k kept"
try "phi3: half of a tensor kept" 65 'qkv_proj.weight has parts of different forms' nt-pack $q -m "$m" "$t.nts" --format awq -o "$tmp/out"

py compare <"$tmp/pairs" >"$tmp/verdict"; ok $? "all are compared"
while read -r status text; do ok "$status" "$text"; done <"$tmp/verdict"
[ "$(wc -l <"$tmp/verdict")" -gt 60 ]; ok $? "$(wc -l <"$tmp/verdict") of them"
finish
