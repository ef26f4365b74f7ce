# SPDX-License-Identifier: Apache-2.0
# nt-gen-calib decodes with a cache, a token at a time: on the tiny model of every family the tokens are those that the logits
# of whole sequences (nt-eval, compared with transformers in run.sh) and the random numbers give. Sequences are longer than
# the windows.
. tests/tap.bash
need_python
q="--progress none"

"$PYTHON" tests/cli/families/families.py make "$tmp" >"$tmp/names"; ok $? "models are made"
"$PYTHON" tests/cli/families/decode.py tokenizer "$tmp"; ok $? "and a tokenizer"
decode() { # NAME
    local T=14
    [ "$1" = llama-dynamic ] && T=8 # its positions
    cp "$tmp/tokenizer.json" "$tmp/$1/" &&
        nt-gen-calib $q -m "$tmp/$1" --scheme llm-qat -n 5 -T $T --top-k 0 --seed 1 --holdout 0 -o "$tmp/$1.nts" &&
        "$PYTHON" tests/cli/families/decode.py ids "$tmp/$1.nts" "$tmp/$1.ids" &&
        nt-eval $q -m "$tmp/$1" --ids "$tmp/$1.ids" --dump logits -o "$tmp/$1.dump"
}
for name in $(cat "$tmp/names"); do check "$name is decoded" decode "$name"; done
"$PYTHON" tests/cli/families/decode.py compare "$tmp" <"$tmp/names" >"$tmp/verdict"; ok $? "tokens are compared"
while read -r status text; do ok "$status" "$text"; done <"$tmp/verdict"
finish
