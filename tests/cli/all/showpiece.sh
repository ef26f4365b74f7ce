# SPDX-License-Identifier: Apache-2.0
# pipelines/showpiece.sh on the embedded model: the table's numbers are those of nt-eval and cmp, a file that cannot be improved and
# one that is not there are named, a second run measures the copies that are there; last-words.awk makes items as it says.
. tests/tap.bash
export OMP_NUM_THREADS=1
root=$PWD model=$PWD/tests/data/embedded q="--progress none"
prose() { "$O/tests/data/embedded/story" -s "$1" -n "$2"; }
prose 11 100000 >"$tmp/prose.txt"
prose 12 40000 | tr '\n' ' ' | fold -s -w 600 >"$tmp/text.txt" # paragraphs are lines
cd "$tmp" || exit
mkdir bin theirs
nt-gen-calib $q -m "$model" --scheme text --text text.txt -n 12 -T 256 --holdout 0.9 -o eval.nts 2>err &&
    nt-gen-calib $q -m "$model" --scheme text --text prose.txt -n 80 -T 256 -o calib.nts 2>err
ok $? "tokens"
nt-quant $q -m "$model" -q rtn -b 2 -g 32 --sym -o q.nts 2>err && nt-pack $q -m "$model" q.nts --format gguf -o theirs/a.gguf 2>err &&
    nt-pack $q -m "$model" q.nts --format mlx --norm-dtype bf16 -o theirs/b 2>err
ok $? "two quantized files"
# the model was made for shorter windows than the protocols of texts have
cat >bin/nt-eval <<SHIM
#!/bin/bash
args=()
while [ \$# -gt 0 ]; do case \$1 in --ppl | --protocol | --windows) shift 2 ;; *) args+=("\$1"); shift ;; esac; done
exec $root/$O/bin/nt-eval "\${args[@]}" --tokens $tmp/eval.nts
SHIM
chmod +x bin/nt-eval
export PATH=$tmp/bin:$root/$O/bin:$PATH
showpiece() { ITEMS=20 "$root/pipelines/showpiece.sh" "$model" calib.nts text.txt better "$@" >table 2>err; }
options=(-- $q --steps 8 --batch 4 --warmup 2 --lr 3e-3 --eval-every 8)
cell() { # FILE NORMS COLUMN
    awk -F'\t' -v f="$1" -v n="$2" -v c="$3" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == c) k = i } $1 == f && $2 == n { print $k }' table
}

showpiece theirs/a.gguf theirs/b/ "${options[@]}"; ok $? "both are improved"
[ "$(awk -F'\t' '{ print NF }' table | sort -u)" = 13 ] && [ "$(wc -l <table)" = 6 ]; ok $? "six lines of thirteen columns"
for f in a.gguf b; do
    awk -v a="$(cell $f before kl)" -v b="$(cell $f after kl)" 'BEGIN { exit !(b > 0 && b < 0.97 * a) }'
    ok $? "$f: the divergence falls from $(cell $f before kl) to $(cell $f after kl)"
    for which in before:theirs after:better; do
        nt-eval $q -m "${which#*:}/$f" --ref "$model" --no-drift -o one.tsv 2>err
        for c in ppl kl top1; do
            [ "$(awk -F'\t' -v m=$c '$2 == m { print $5 }' one.tsv)" = "$(cell $f ${which%:*} $c)" ]; ok $? "$f ${which%:*}: $c is nt-eval's"
        done
    done
done
[ "$(cell a.gguf after bytes_changed)" = "$(cmp -l theirs/a.gguf better/a.gguf | wc -l)" ] &&
    [ "$(cell a.gguf after bytes)" = "$(wc -c <better/a.gguf)" ]
ok $? "a.gguf: $(cell a.gguf after bytes_changed) of $(cell a.gguf after bytes) bytes"
[ "$(cell b after bytes_changed)" = "$(cmp -l theirs/b/model.safetensors better/b/model.safetensors | wc -l)" ]
ok $? "b: $(cell b after bytes_changed) bytes"
[ "$(cell a.gguf after type)" = F32 ] && [ "$(cell b after type)" = BF16 ]; ok $? "the norms' types"
[ "$(wc -l <better/words.jsonl)" = 20 ]; ok $? "20 items"

cp table first; stat -c %Y.%i better/a.gguf >stamp
showpiece theirs/a.gguf theirs/b "${options[@]}" && cmp -s table first && stat -c %Y.%i better/a.gguf | cmp -s - stamp
ok $? "a second run measures what is there"
showpiece theirs/none theirs/a.gguf "${options[@]}"
[ $? = 1 ] && grep -q 'theirs/none is not there' err && [ -n "$(cell a.gguf after kl)" ]
ok $? "a file that is missing is named, the others are measured"
rm -rf better
showpiece theirs/a.gguf -- $q --steps 1 --batch 1 --lr 1e-9
[ $? = 1 ] && grep -q 'a.gguf was not improved' err && [ -n "$(cell a.gguf before kl)" ] && [ -z "$(cell a.gguf after kl)" ]
ok $? "no gain, no row after it"
mkdir twin && cp theirs/a.gguf twin && showpiece theirs/a.gguf twin/a.gguf "${options[@]}"
[ $? = 2 ] && grep -q 'two files are called a.gguf' err; ok $? "two files of one name are refused"

words() { LC_ALL=C awk -v n="$1" -f "$root/pipelines/last-words.awk"; }
{ printf 'w%.0s ' {1..50}; echo 'say "a\b" now. More'; printf 'w%.0s ' {1..55}; echo 'quiet end . More'; echo 'too short .'; } | words 9 >items
"$PYTHON" - <<'PYTHON_END'
import json
items = [json.loads(x)["text"] for x in open("items")]
assert items == ["w " * 50 + 'say "a\\b" now', "w " * 55 + "quiet end"], items
PYTHON_END
ok $? "items end in the last word of a sentence"
cd "$root" || exit
finish
