# SPDX-License-Identifier: Apache-2.0
# The generator of stories: same seed same bytes; what it says about its entropy is what a reader of the text, written apart
# from it, adds up (tests/data/embedded/parse.py); that reader notices a wrong word, and a fact that is not so.
. tests/tap.bash
story() { "$O/tests/data/embedded/story" "$@"; }
parse() { "$PYTHON" tests/data/embedded/parse.py; }

for seed in 0 1 77 18446744073709551615; do
    story -v -s $seed -n 100000 >"$tmp/$seed" 2>"$tmp/said"
    parse <"$tmp/$seed" >"$tmp/read" 2>&1; cmp -s "$tmp/said" "$tmp/read"
    ok $? "seed $seed: $(cat "$tmp/said"), read back: $(cat "$tmp/read")"
done
story -s 77 -n 100000 | cmp -s - "$tmp/77"; ok $? "same seed, same bytes"
story -s 77 -n 5000 | head -c 2000 | cmp -s - <(head -c 2000 "$tmp/77"); ok $? "a shorter text is the beginning of a longer one"
[ "$(sort "$tmp/0" "$tmp/1" "$tmp/77" | uniq -d | wc -l)" -lt 10 ]; ok $? "other seeds, other stories"
[ "$(awk 'NF' "$tmp/1" | sort -u | wc -l)" -gt 100 ]; ok $? "no two stories alike"

wrong() { # NAME PATTERN REPLACEMENT: one word changed, and the reader refuses the text
    sed "0,/$2/s//$3/" "$tmp/1" >"$tmp/changed"
    ! cmp -s "$tmp/1" "$tmp/changed" && ! parse <"$tmp/changed" >"$tmp/read" 2>&1; ok $? "$1: $(head -c 100 "$tmp/read")"
}
wrong "a noun in the wrong number" "The [a-z]*[a-df-rt-z]s that" "The dog that"
wrong "a wrong sum" " and [0-9]* stayed" " and 99 stayed"
wrong "a quote that stays open" ",\" said" " said"
wrong "another animal than is known" "called [A-Z][a-z]* in" "called Socks in"
wrong "a state that does not go with the animal" " is [a-z]*\." " is thirsty."
wrong "another home" "went home to [A-Z][a-z]*\." "went home to Nowhere."
wrong "another thing found" "found the [a-z]* [a-z]* there" "found the small elephant there"
wrong "the other gender" ", h[ie][sr] \([a-z]*\)," ", their \1,"
finish
