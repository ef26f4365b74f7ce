# SPDX-License-Identifier: Apache-2.0
# --protocol lm-eval-word against the harness's rules in Python (pages.py): pages, spelling, rolling windows, words and bytes.
. tests/cli/nt-eval/lib.bash
B=$D/bytes
cat >"$tmp/text" <<'END'


 = First page = 

 A ( small ) page " of text " , with 3 @.@ 5 words and 's 25 ° C . 
 = = Inner = = 
 [ x ] { y } N ' q ' end ; a : b ! c ? /' 4/ d is' (open  one
 = Second page = 
 = = = Deep = = = 
 More é text here . the cats ' tails 
END
for i in $(seq 420); do echo " Line $i of a long page , which takes three windows . "; done >"$tmp/long"
{ cat "$tmp/text"; echo " = Long = "; cat "$tmp/long"; } >"$tmp/all"

same() { # FILE: nt-eval's three rows are those of pages.py
    ev -m $B --ppl "$1" --protocol lm-eval-word >"$tmp/rows" 2>"$tmp/err" &&
        "$PYTHON" tests/cli/nt-eval/pages.py $B "$1" 2048 256 >"$tmp/want" 2>>"$tmp/err" &&
        awk -F'\t' 'function far(a, b) { return a / b > 1.0001 || a / b < 0.9999 }
            NR == FNR { split($0, w, " "); next }
            $2 == "word_ppl" { n++; bad = bad || far($5, w[1]) || $7 != w[2] }
            $2 == "byte_ppl" { n++; bad = bad || far($5, w[3]) || $7 != w[4] }
            $2 == "bits_per_byte" { n++; bad = bad || far($5, w[5]) }
            END { exit bad || n != 3 }' "$tmp/want" "$tmp/rows"
    local rc=$?
    [ $rc = 0 ] || sed 's/^/# /' "$tmp/want" "$tmp/rows" "$tmp/err"
    return $rc
}
same "$tmp/text"; ok $? "two pages"
same "$tmp/all"; ok $? "a page of several windows, the last of which looks back"
sed 's/$/\r/' "$tmp/text" >"$tmp/crlf"
same "$tmp/crlf"; ok $? "CR LF"
ev -m $B --ppl "$tmp/all" --protocol lm-eval-word --windows 1:2 --json >"$tmp/one" &&
    sed -n '/Second/,$p' "$tmp/text" >"$tmp/second" && truncate -s -1 "$tmp/second" && same "$tmp/second" &&
    [ "$("$PYTHON" -c 'import json, sys; print([r["value"] for r in json.load(open(sys.argv[1])) if r["metric"] == "bits_per_byte"][0])' "$tmp/one")" = \
      "$(awk -F'\t' '$2 == "bits_per_byte" { print $5 }' "$tmp/rows")" ]
ok $? "--windows counts pages"
: >"$tmp/empty"
check_exit 65 "holds no page" nt-eval --progress none -m $B --ppl "$tmp/empty" --protocol lm-eval-word
check_exit 65 "holds no page" nt-eval --progress none -m $B --ppl "$tmp/text" --protocol lm-eval-word --windows 7:8
finish
