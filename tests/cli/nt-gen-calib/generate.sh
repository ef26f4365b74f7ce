# SPDX-License-Identifier: Apache-2.0
# What is generated, against a model, a random generator and a draw written in numpy (check.py).
. tests/cli/nt-gen-calib/lib.bash
if ! "$PYTHON" -c 'import msgpack, numpy' 2>/dev/null; then
    echo "ok 1 # SKIP $PYTHON lacks msgpack or numpy"; echo "1..1"; exit 0
fi
gen() { nt-gen-calib --progress none -j 1 -m "$tiny" "$@"; }
has() { "$PYTHON" -c 'import json, sys; r = json.load(open(sys.argv[1])); sys.exit(0 if eval(sys.argv[2]) else 1)' "$tmp/r" "$1"; }

gen -n 11 -T 40 --seed 7 --languages en,fr -o "$tmp/a.nts"; ok $? "norm-tweaking runs"
"$PYTHON" $here/check.py "$tiny" "$tmp/a.nts" >"$tmp/r"; ok $? "its stream can be read"
has 'r["n"] == 11 and r["wrong"] == 0'; ok $? "every token is the one that logits and random numbers give"
has 'r["wrong_starts"] == 0 and all(m["language"] in ("en", "fr") for m in r["metas"])'
ok $? "first tokens come from the draws and are of the languages"
has 'r["ended"] == 0'; ok $? "no end of generation inside"
has 'r["held"] == [10]'; ok $? "max(1, round(11 / 8)) sequence is held out, the last"
has 'all(r["params"][k] == v for k, v in dict(scheme="norm-tweaking", T=40, n=11, greedy=5, top_k=50, temperature=1.0,
     batch=32, languages="en,fr").items())'; ok $? "the header records the parameters"

gen -n 6 -T 24 --scheme llm-qat --seed 1 --top-k 7 --temperature 0.7 --holdout 1/3 -o "$tmp/q.nts" &&
    "$PYTHON" $here/check.py "$tiny" "$tmp/q.nts" >"$tmp/r"; ok $? "llm-qat runs"
has 'r["wrong"] == 0 and r["wrong_starts"] == 0'; ok $? "llm-qat: any first token, top 7 at temperature 0.7"
has '[m["greedy"] for m in r["metas"]] == [3, 4, 5, 3, 4, 5] and r["held"] == [4, 5]'
ok $? "llm-qat: greedy to total length 3, 4, 5; two of six held out"
gen -n 5 -T 24 --scheme llm-qat --top-k 0 --holdout 0 -o "$tmp/all.nts" &&
    "$PYTHON" $here/check.py "$tiny" "$tmp/all.nts" >"$tmp/r" && has 'r["wrong"] == 0 and r["held"] == []'
ok $? "top-k 0 draws from the whole vocabulary; nothing held out"

gen -n 11 -T 40 --seed 7 --languages en,fr -j 3 -o "$tmp/b.nts"; cmp -s "$tmp/a.nts" "$tmp/b.nts"
ok $? "the same bytes with three threads"
gen -n 11 -T 40 --seed 7 --languages en,fr >"$tmp/b.nts"; cmp -s "$tmp/a.nts" "$tmp/b.nts"; ok $? "and through stdout"
dump() { "$PYTHON" $here/check.py --dump "$1"; }
gen -n 11 -T 40 --seed 7 --languages en,fr --batch 4 -o "$tmp/c.nts"
cmp -s <(dump "$tmp/a.nts") <(dump "$tmp/c.nts"); ok $? "batches of 4, the last one of 3, give the same sequences here"
gen -n 11 -T 40 --seed 8 --languages en,fr -o "$tmp/d.nts"
! cmp -s <(dump "$tmp/a.nts") <(dump "$tmp/d.nts"); ok $? "another seed gives others"

# text: windows of the text's own ids
printf 'The river runs past the old mill.\nThe miller'"'"'s children count 1999 boats.\n\n%.0s' {1..30} >"$tmp/text"
gen --scheme text --text "$tmp/text" -n 9 -T 32 -o "$tmp/t.nts"; ok $? "text runs"
"$PYTHON" tests/cli/ring/ring.py inputs "$tmp/t.nts" text="$tmp/text" >"$tmp/r" 2>&1; ok $? "and names its text by its hash ($(tail -n 1 "$tmp/r"))"
"$PYTHON" -c 'import json, sys; print(json.dumps(open(sys.argv[1]).read()))' "$tmp/text" | nt-gen-calib -m "$tiny" --encode >"$tmp/ids"
"$PYTHON" - "$tmp/ids" >"$tmp/windows" <<'PY'
import json, sys
ids = json.load(open(sys.argv[1]))
for i in range(9): print(json.dumps(ids[32 * i:32 * i + 32]))
PY
cmp -s <(dump "$tmp/t.nts") "$tmp/windows"; ok $? "text: consecutive windows from the start"
gen --scheme text --text - -n 9 -T 32 <"$tmp/text" | cmp -s - "$tmp/t.nts"; ok $? "text from stdin"
"$PYTHON" - "$tmp/text" >"$tmp/text.jsonl" <<'PY'
import json, sys
for part in open(sys.argv[1]).read().split("\n\n"):
    if part: print(json.dumps({"id": 1, "text": part}))
PY
gen --scheme text --text "$tmp/text.jsonl" -n 9 -T 32 -o "$tmp/j.nts"
cmp -s <(dump "$tmp/j.nts") "$tmp/windows"; ok $? "jsonl: texts joined by empty lines"

# a vocabulary whose template puts BOS in front
"$PYTHON" - "$tiny/tokenizer.json" <<'PY'
import json, sys
t = json.load(open(sys.argv[1]))
one = [{"SpecialToken": {"id": "<|begin|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
t["post_processor"] = {"type": "TemplateProcessing", "single": one, "pair": one + [{"Sequence": {"id": "B", "type_id": 0}}],
                       "special_tokens": {"<|begin|>": {"id": "<|begin|>", "ids": [0], "tokens": ["<|begin|>"]}}}
json.dump(t, open(sys.argv[1], "w"))
PY
echo '{"bos_token": "<|begin|>"}' >"$tiny/tokenizer_config.json"
for scheme in norm-tweaking llm-qat; do
    gen -n 5 -T 24 --scheme $scheme --seed 3 -o "$tmp/$scheme.nts" && "$PYTHON" $here/check.py "$tiny" "$tmp/$scheme.nts" >"$tmp/r" &&
        has 'r["params"]["bos"] == 0 and r["wrong"] == 0 and r["wrong_starts"] == 0'
    ok $? "$scheme: BOS first, then the drawn token, and every later one as the logits after them give"
done
gen --scheme text --text "$tmp/text" -n 9 -T 32 -o "$tmp/b.nts"
"$PYTHON" - "$tmp/ids" >"$tmp/windows" <<'PY'
import json, sys
ids = json.load(open(sys.argv[1]))
for i in range(9): print(json.dumps([0] + ids[31 * i:31 * i + 31]))
PY
cmp -s <(dump "$tmp/b.nts") "$tmp/windows"; ok $? "text: BOS before every window"
nt-gen-calib --progress none -m "$tiny" -n 2 -T 2 -o "$tmp/none.nts" 2>"$tmp/r"; [ $? = 2 ] && grep -q BOS "$tmp/r"; ok $? "no room after BOS: $(tail -n 1 "$tmp/r")"
finish
