# SPDX-License-Identifier: Apache-2.0
# Every family of tests/data/families: logits, hidden states and norm gradients are those of transformers in float64.
. tests/tap.bash
need_python

"$PYTHON" tests/cli/families/families.py make "$tmp" >"$tmp/names"; ok $? "models are made"
while read -r name; do
    nt-eval -m "$tmp/$name" --ids "$tmp/$name.ids" --dump logits,hidden,norm-grads -o "$tmp/$name.out" 2>"$tmp/stderr" ||
        sed "s/^/# $name: /" "$tmp/stderr"
done <"$tmp/names"
"$PYTHON" tests/cli/families/families.py compare "$tmp" >"$tmp/verdict"; ok $? "dumps are compared"
while read -r status text; do ok "$status" "$text"; done <"$tmp/verdict"
[ "$count" -gt 2 ]; ok $? "there are families"

# as a model without its head was saved by old programs: names without their first part, and buffers
rm -rf "$tmp"/*
"$PYTHON" tests/cli/families/families.py make "$tmp" bare buffers >"$tmp/names"
while read -r name; do
    nt-eval -m "$tmp/$name" --ids "$tmp/$name.ids" --dump logits -o "$tmp/$name.out" 2>"$tmp/stderr" || sed "s/^/# /" "$tmp/stderr"
done <"$tmp/names"
"$PYTHON" tests/cli/families/families.py compare "$tmp" logits >"$tmp/verdict"
while read -r status text; do ok "$status" "bare names and buffers, $text"; done <"$tmp/verdict"

# what is no decoder, or not known
refused() { # TYPE PATTERN
    mkdir -p "$tmp/none" && echo "{\"model_type\": \"$1\"}" >"$tmp/none/config.json"
    cp "$tmp/gpt2/model.safetensors" "$tmp/none"
    nt-eval -m "$tmp/none" --ids "$tmp/gpt2.ids" --dump logits -o "$tmp/none.out" 2>"$tmp/stderr"
    [ $? = 65 ] && grep -qE "$2" "$tmp/stderr"
    ok $? "$1: $(tail -n 1 "$tmp/stderr" | cut -c 1-200)"
}

rm -f "$tmp"/*.out
"$PYTHON" tests/cli/families/families.py chatglm "$tmp/chatglm" &&
    nt-eval -m "$tmp/chatglm" --ids "$tmp/glm.ids" --dump logits,hidden -o "$tmp/glm.out" 2>"$tmp/stderr" &&
    "$PYTHON" tests/cli/families/families.py compare "$tmp" logits | grep -q '^0 glm:' &&
    "$PYTHON" tests/cli/families/families.py compare "$tmp" hidden | grep -q '^0 glm:'
ok $? "chatglm: what its conversion to glm computes"

# an unknown model that is built like a known one
sed -i 's/"model_type": "llama"/"model_type": "unheard-of"/' "$tmp/llama-yarn/config.json"
rm -f "$tmp"/*.out
nt-eval -m "$tmp/llama-yarn" --family llama --ids "$tmp/llama-yarn.ids" --dump logits -o "$tmp/llama-yarn.out" 2>"$tmp/stderr" &&
    "$PYTHON" tests/cli/families/families.py compare "$tmp" logits | grep -q '^0 llama-yarn:'
ok $? "--family llama: the logits of transformers"
nt-quant -m "$tmp/llama-yarn" --family llama -q rtn -b 4 -g 8 -o "$tmp/q.nts" 2>"$tmp/stderr" &&
    nt-pack -m "$tmp/llama-yarn" --family llama "$tmp/q.nts" --format hf -o "$tmp/packed" 2>"$tmp/stderr" &&
    grep -q unheard-of "$tmp/packed/config.json"
ok $? "--family llama: quantized and packed under its own name"
nt-eval -m "$tmp/llama-yarn" --family lama --ids "$tmp/llama-yarn.ids" --dump logits -o "$tmp/none.out" 2>"$tmp/stderr"
[ $? = 2 ] && grep -q "'lama' is no family" "$tmp/stderr"; ok $? "--family: one that does not exist"

for type in bert roberta xlm-roberta distilbert albert electra deberta-v2 modernbert; do
    refused $type "model_type $type is an encoder: only decoder"
done
for type in t5 mt5 bart mbart pegasus marian m2m_100 whisper; do refused $type "model_type $type is an encoder with a decoder: only"; done
refused unheard-of 'unheard-of is not known; known are .*bloom.*falcon.*gpt2.*llama.*opt.*phi'
finish
