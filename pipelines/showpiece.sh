#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What improve.sh is worth on quantized files of your own, as a table on stdout: each file before and after.
#   showpiece.sh FLOAT TOKENS.nts TEXT DIR CKPT... [-- OPTION of nt-tweak...]
# FLOAT is the model that the files CKPT were made of. Neither the quantizers nor TOKENS should have seen TEXT. The better
# copies go to DIR under the names of the originals; those that are there from an earlier run are measured, not made again.
# All is measured from the files as they lie, after their norms were rounded to the file's type; seconds (on the clock, and of all
# cores) are those of improve.sh. Environment:
#   WINDOWS=0:4 PROTOCOL=gptq-2048   of TEXT, see nt-eval(1)
#   WORDS=FILE.jsonl ITEMS=200       last words to guess; by default of that many paragraphs (lines) of TEXT, by last-words.awk
#   EVAL_OPTIONS=                    more options of nt-eval, say "--precision bf16"
# Exit 1 if a file is missing, was not improved, or has no lower divergence on TEXT after it: stderr says which.
set -euo pipefail
shopt -s inherit_errexit
usage() { sed -n '3,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 5 ] || usage
float=$1 tokens=$2 text=$3 dir=$4
shift 4
files=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do files+=("${1%/}"); shift; done
[ ${#files[@]} -gt 0 ] || usage
[ $# = 0 ] || shift # what is left are options of nt-tweak
for f in "$float" "$tokens" "$text"; do [ -e "$f" ] || { echo "showpiece.sh: $f is not there" >&2; exit 74; }; done
twice=$(for f in "${files[@]}"; do basename "$f"; done | sort | uniq -d | head -n 1)
[ -z "$twice" ] || { echo "showpiece.sh: two files are called $twice" >&2; exit 2; }
mkdir -p "$dir"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0
complain() { echo "showpiece.sh: $*" >&2; failed=1; }
words=${WORDS:-$dir/words.jsonl}
if [ -z "${WORDS:-}" ]; then
    LC_ALL=C awk -v n="${ITEMS:-200}" -f "$here/last-words.awk" "$text" >"$words"
    [ -s "$words" ] || { echo "showpiece.sh: $text has no line of a paragraph's length: give WORDS=FILE.jsonl" >&2; exit 65; }
fi

measure() { # MODEL [OPTION of nt-eval]...: the columns from ppl to bits
    # shellcheck disable=SC2086
    nt-eval -m "$@" --ppl "$text" --protocol "${PROTOCOL:-gptq-2048}" --windows "${WINDOWS:-0:4}" --lambada "$words" \
        --no-drift --progress none ${EVAL_OPTIONS:-} -o "$tmp/eval.tsv" || return
    awk -F'\t' -v OFS='\t' 'NR > 1 { v[$2] = $5; bits = $8 }
        END { print v["ppl"], ("kl" in v) ? v["kl"] : 0, ("top1" in v) ? v["top1"] : 1, v["lambada"], bits }' "$tmp/eval.tsv"
}
cpu_seconds() { # of all that this script has waited for; times must not run in a subshell
    times >"$tmp/times"
    awk 'NR == 2 { gsub(/[ms]/, " "); printf "%d\n", 60 * ($1 + $3) + $2 + $4 }' "$tmp/times" >"$tmp/cpu"
    read -r cpu <"$tmp/cpu"
}
improve() { # CKPT NEW NOTES OPTION...: NOTES are what nt-pack said, and the seconds
    local from=$SECONDS cpu status=0 cpu_from
    cpu_seconds
    cpu_from=$cpu
    "$here/improve.sh" "$float" "$1" "$tokens" "$2" "${@:4}" >"$tmp/notes" || status=$?
    [ $status = 0 ] || return $status
    cpu_seconds
    printf 'seconds\t%d\ncpu_seconds\t%d\n' $((SECONDS - from)) $((cpu - cpu_from)) >>"$tmp/notes"
    mv "$tmp/notes" "$3"
}
differing() { # CKPT NEW: "bytes that differ <tab> bytes" over the files with tensors
    local of=$1 f n=0 all=0 pairs=("$2")
    if [ -d "$2" ]; then
        pairs=("$2"/*.safetensors "$2"/*.gguf)
        [ -d "$of" ] || of=$(dirname "$of")
    fi
    for f in "${pairs[@]}"; do
        [ -f "$f" ] || continue
        n=$((n + $( (cmp -l "$([ -d "$of" ] && echo "$of/$(basename "$f")" || echo "$of")" "$f" || true) | wc -l)))
        all=$((all + $(wc -c <"$f")))
    done
    printf '%d\t%d' $n $all
}
note() { awk -F'\t' -v k="$1" '$1 == k { print $2 }' "$2"; }

printf 'file\tnorms\tppl\tkl\ttop1\tlast_words\tbits\tbytes_changed\tbytes\tseconds\tcpu_seconds\tkept\ttype\n'
row=$(measure "$float")
printf '%s\tfloat\t%s\t\t\t\t\t\t\n' "$(basename "$float")" "$row"
for f in "${files[@]}"; do
    name=$(basename "$f") new=$dir/$(basename "$f")
    [ -e "$f" ] || { complain "$f is not there: left out"; continue; }
    before=$(measure "$f" --ref "$float") || { complain "$f cannot be measured: left out"; continue; }
    printf '%s\tbefore\t%s\t\t\t\t\t\t\n' "$name" "$before"
    if [ ! -e "$new" ] || [ ! -e "$new.notes" ]; then
        improve "$f" "$new" "$new.notes" "$@" || { complain "$f was not improved (exit $?)"; continue; }
    fi
    after=$(measure "$new" --ref "$float") || { complain "$new cannot be measured"; continue; }
    printf '%s\tafter\t%s\t%s\t%s\t%s\t%s\t%s\n' "$name" "$after" "$(differing "$f" "$new")" \
        "$(note seconds "$new.notes")" "$(note cpu_seconds "$new.notes")" "$(note kept "$new.notes")" \
        "$(note type "$new.notes")"
    kl=$(cut -f2 <<<"$before") new_kl=$(cut -f2 <<<"$after")
    awk -v a="$kl" -v b="$new_kl" 'BEGIN { exit !(b < a) }' || complain "$f: the divergence did not fall ($kl, $new_kl)"
done
exit $failed
