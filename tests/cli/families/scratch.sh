# SPDX-License-Identifier: Apache-2.0
# GGUF files without a template: keys as llama.cpp's converter has them, tensors as after a template, the same logits; what the keys
# cannot say is refused. The vocabulary of the embedded model, which llama.cpp's own tokenizer takes apart the same way
# (tests/interop/llamacpp.sh).
. tests/tap.bash
need_python
export OMP_NUM_THREADS=1 # many short runs
q="--progress none"
py() { "$PYTHON" tests/cli/families/scratch.py "$@"; }
one() { # NAME
    local m=$tmp/$1
    nt-quant $q -m "$m" -q rtn -b 4 -g 32 --sym -o "$m.nts" 2>/dev/null && nt-pack $q -m "$m" "$m.nts" --format gguf --loose -o "$m.new.gguf" &&
        nt-pack $q -m "$m" "$m.nts" --format gguf --loose --like "$m.gguf" -o "$m.like.gguf" &&
        nt-eval $q -m "$m" --qweights "$m.nts" --ids "$m.ids" --dump logits -o "$m.ours" &&
        nt-eval $q -m "$m.new.gguf" --ids "$m.ids" --dump logits -o "$m.new"
}
py make "$tmp" >"$tmp/names"; ok $? "models are made"
while read -r name; do check "$name: a GGUF file from scratch" one "$name"; done <"$tmp/names"
py compare "$tmp" >"$tmp/verdict"; ok $? "compared"
while read -r status text; do ok "$status" "$text"; done <"$tmp/verdict"

edited() { # JSON: a copy of the Qwen3 model whose configuration says this, too
    rm -rf "$tmp/edited"; cp -r "$tmp/qwen3" "$tmp/edited" &&
        "$PYTHON" -c 'import json, sys; p = sys.argv[1] + "/config.json"; c = json.load(open(p)); c.update(json.loads(sys.argv[2])); json.dump(c, open(p, "w"))' "$tmp/edited" "$1" &&
        nt-quant $q -m "$tmp/edited" -q rtn -b 4 -g 32 --sym -o "$tmp/edited.nts" 2>/dev/null
}
edited '{"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}'
try "a rope that GGUF has no keys for" 65 'do not express' nt-pack $q -m "$tmp/edited" "$tmp/edited.nts" --format gguf -o "$tmp/out"
edited '{"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}, "max_position_embeddings": 256}'
check "llama3's scaling as divisors" nt-pack $q -m "$tmp/edited" "$tmp/edited.nts" --format gguf --loose -o "$tmp/llama3.gguf"
"$PYTHON" - "$tmp/llama3.gguf" <<'EOP'
import math, sys  # one divisor a frequency: 1 for short waves, the factor for long ones, between them the line in between
sys.path.insert(0, "tests/cli/nt-pack")
import oracle
t, kv = oracle.read_gguf(sys.argv[1])
d, base = t["rope_freqs.weight"][1], kv["qwen3.rope.freq_base"]
for i, x in enumerate(d):
    wave = 2 * math.pi * base ** (i / len(d))
    smooth = (32 / wave - 1) / 3
    want = 1 if wave < 8 else 8 if wave > 32 else 1 / ((1 - smooth) / 8 + smooth)
    assert abs(x - want) < 1e-5 * want, (i, x, want)
EOP
ok $? "they are the formula's"

M=tests/data/embedded
nt-quant $q -m $M -q rtn -b 4 -g 32 --sym -o "$tmp/e.nts" 2>/dev/null && nt-pack $q -m $M "$tmp/e.nts" --format gguf -o "$tmp/e.gguf" 2>"$tmp/stderr"
ok $? "the embedded model with its vocabulary $(tail -n 1 "$tmp/stderr")"
printf '%s\n' '"Tom has 3 apples,\n\nand  Ann\u2019s 12 pears! \ud83d\ude42"' '""' '"  x\r\n\t1234.5"' >"$tmp/lines"
nt-gen-calib -m $M --encode <"$tmp/lines" >"$tmp/a" && nt-gen-calib -m "$tmp/e.gguf" --encode <"$tmp/lines" >"$tmp/b" && cmp "$tmp/a" "$tmp/b" &&
    nt-gen-calib -m $M --encode --special <"$tmp/lines" >"$tmp/a" && nt-gen-calib -m "$tmp/e.gguf" --encode --special <"$tmp/lines" >"$tmp/b" && cmp "$tmp/a" "$tmp/b"
ok $? "the same ids from either form"
ids() { # MODEL OPTION...: of all texts
    nt-gen-calib -m "$1" --encode "${@:2}" <"$tmp/lines"
}
vocabulary() { # NAME
    local v=$tmp/vocab-$1
    nt-quant $q -m "$v" -q rtn -b 4 -g 32 --sym 2>/dev/null | nt-pack $q -m "$v" --format gguf --loose -o "$v.gguf" &&
        cmp <(ids "$v") <(ids "$v.gguf") && cmp <(ids "$v" --special) <(ids "$v.gguf" --special)
}
py vocabularies "$tmp" >"$tmp/names"; ok $? "models with vocabularies of $(wc -l <"$tmp/names") kinds, $(wc -l <"$tmp/lines") texts"
while read -r name; do check "$name: the same ids" vocabulary "$name"; done <"$tmp/names"
mkdir "$tmp/odd"; cp $M/config.json $M/model.safetensors "$tmp/odd"
"$PYTHON" -c 'import json, sys; t = json.load(open(sys.argv[1])); t["normalizer"] = {"type": "Lowercase"}; json.dump(t, open(sys.argv[2], "w"))' $M/tokenizer.json "$tmp/odd/tokenizer.json"
try "a vocabulary that GGUF cannot hold" 65 'gives the same ids' nt-pack $q -m "$tmp/odd" "$tmp/e.nts" --format gguf -o "$tmp/out"
finish
