# SPDX-License-Identifier: Apache-2.0
# Keys of configurations that change what some class computes, and are not honoured by the model's: refused by name, in
# config.json and in GGUF; at values that change nothing they change nothing.
. tests/tap.bash
need_python

"$PYTHON" tests/cli/families/keys.py "$tmp" >"$tmp/list"; ok $? "configurations are made"
while read -r expect path ids text; do
    case $expect in
    refused) try "refused: $text" 65 "${text//./.}" nt-eval -m "$path" --ids "$ids" --dump logits -o "$tmp/out" ;;
    same)
        nt-eval -m "$path" --ids "$ids" --dump logits -o "$tmp/$text.out" 2>"$tmp/stderr" &&
            "$PYTHON" tests/cli/families/families.py compare "$tmp" logits "$text"
        ok $? "${path##*/}: the logits of transformers' $text $(tail -n 1 "$tmp/stderr")" ;;
    esac
done <"$tmp/list"
[ "$count" -gt 110 ]; ok $? "$count configurations"
finish
