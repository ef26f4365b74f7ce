# SPDX-License-Identifier: Apache-2.0
# The embedded model: small, float16, its tokenizer takes stories apart and puts them together again, and on stories of another
# seed than it was trained on its loss lies above their entropy, which no model can beat, and below 1.9 nats a token.
. tests/tap.bash
M=tests/data/embedded
story() { "$O/tests/data/embedded/story" "$@"; }

bytes=$(cat $M/model.safetensors $M/config.json $M/tokenizer.json | wc -c)
[ "$bytes" -lt 6291456 ]; ok $? "$bytes bytes, less than 6 MiB"
head -c 20000 $M/model.safetensors | tr -d '\0' | grep -oa '"dtype":"[A-Z0-9]*"' | sort | uniq -c >"$tmp/types"
[ "$(wc -l <"$tmp/types")" = 1 ] && grep -q '"F16"' "$tmp/types"; ok $? "types of its tensors:$(cat "$tmp/types")"

story -v -s 4 -n 40000 >"$tmp/text" 2>"$tmp/said"
"$PYTHON" -c 'import json, sys; [print(json.dumps(x + "\n\n")) for x in sys.stdin.read().split("\n\n") if x]' <"$tmp/text" >"$tmp/lines"
nt-gen-calib -m $M --encode <"$tmp/lines" >"$tmp/ids" && nt-gen-calib -m $M --decode <"$tmp/ids" >"$tmp/back" &&
    "$PYTHON" -c 'import json, sys; a, b = ([json.loads(x) for x in open(f)] for f in sys.argv[1:]); sys.exit(a != b)' "$tmp/lines" "$tmp/back"
ok $? "$(wc -l <"$tmp/ids") stories to ids and back"
tokens=$(tr -cd ',\n' <"$tmp/ids" | wc -c)
floor=$(awk -v n="$tokens" '{ print $6 / n }' "$tmp/said")

nt-gen-calib --progress none -m $M --scheme text --text "$tmp/text" -n 20 -T 256 --holdout 0.9 -o "$tmp/c.nts" 2>/dev/null &&
    nt-eval --progress none -m $M --tokens "$tmp/c.nts" >"$tmp/table" 2>/dev/null; ok $? "nt-eval"
loss=$(awk -F '\t' '$2 == "ppl" { print log($5) }' "$tmp/table")
awk -v a="$floor" -v b="$loss" 'BEGIN { exit !(a > 0.5 && b > a && b < 1.9) }'
ok $? "loss $loss nats a token, the text's entropy is $floor"
finish
