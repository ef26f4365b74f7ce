# SPDX-License-Identifier: Apache-2.0
# The quantized stream: three processes around a FIFO, and one run per layer with boundaries in files: the same records, the
# same for any number of threads, and what they mean as NumPy has it.
. tests/cli/ring/lib.bash
L=5
make_model $L || exit 1
step=(--lr 1e-3)
"$PYTHON" -c 'import json, sys; json.dump([s[::-1] for s in json.load(open(sys.argv[1]))], open(sys.argv[2], "w"))' \
    "$M/ids.json" "$tmp/ids2.json" && "$PYTHON" tests/cli/nt-collect/tokens.py "$tmp/ids2.json" 4 "$tmp/c2.nts" || exit 1

ring 2 "$tmp/q.nts" "${step[@]}"
[ "${rc[*]}" = "0 0 0" ]; ok $? "the ring runs (exits ${rc[*]}) $(cat "$tmp/err1" "$tmp/err2" | tail -n 1)"
ring 1 "$tmp/q1.nts" "${step[@]}"
cmp -s "$tmp/q.nts" "$tmp/q1.nts"; ok $? "1 and 2 threads give the same bytes"
by_layer "$tmp/f" "${step[@]}"; ok $? "one run per layer"
files=(); for ((l = 0; l < L; l++)); do files+=("$tmp/f/q.$l"); done
py same "$tmp/q.nts" "${files[@]}" >"$tmp/py" 2>&1; ok $? "the same records as the ring's ($(tail -n 1 "$tmp/py"))"
nt-stream cat "${files[@]}" -o "$tmp/joined.nts" && py same "$tmp/q.nts" "$tmp/joined.nts" >"$tmp/py" 2>&1
ok $? "nt-stream cat joins them ($(tail -n 1 "$tmp/py"))"
for key in verdict norms changed n bits kl_old kl_new kl_gain_stderr top1_old top1_new; do
    [ "$(py trailer "$tmp/q.nts" $key)" = "$(py trailer "$tmp/joined.nts" $key)" ]; ok $? "and the ring's $key: $(py trailer "$tmp/q.nts" $key)"
done
[ "$(py trailer "$tmp/f/q.0" verdict)" = none ]
ok $? "the run of another layer than the last has no verdict"
nt-eval $q -m "$M" --qweights "$tmp/joined.nts" --tokens "$C" --ref "$M" --no-drift >"$tmp/eval" 2>"$tmp/err"
ok $? "nt-eval takes the joined stream $(tail -n 1 "$tmp/err")"

# who was made from what: the trailers' hashes, found by Python
while read -r file names; do
    py inputs "$file" $names >"$tmp/py" 2>&1; ok $? "inputs of ${file##*/}: $(tail -n 1 "$tmp/py")"
done <<LIST
$tmp/f/stats.2 tokens=$C acts=$tmp/f/acts.2
$tmp/f/quant.2 stats=$tmp/f/stats.2
$tmp/f/q.2 qweights=$tmp/f/quant.2 tokens=$C acts=$tmp/f/acts.2
$tmp/f/acts.3 tokens=$C acts=$tmp/f/acts.2
$tmp/f/q.0 qweights=$tmp/f/quant.0 tokens=$C
$tmp/joined.nts qweights=$tmp/f/q.0 qweights=$tmp/f/q.1 qweights=$tmp/f/q.2 qweights=$tmp/f/q.3 qweights=$tmp/f/q.4
LIST

# boundaries mean what they say
nt-tweak $q -m "$M" --tokens "$C" --lr 1e-3 --acts-out "$tmp/acts.nts" -o "$tmp/t.nts" <(nt-stream cat "$tmp"/f/quant.?) 2>"$tmp/err"
ok $? "--acts-out to a file, all layers $(tail -n 1 "$tmp/err")"
py same "$tmp/acts.nts" "$tmp"/f/acts.[1-4] >"$tmp/py" 2>&1; ok $? "the boundaries of the runs of one layer each ($(tail -n 1 "$tmp/py"))"
[ "$(nt-stream ls "$tmp/f/acts.$L" | wc -l)" = 1 ]; ok $? "no boundary after the last block"
for norms in new old; do nt-pack -m "$M" "$tmp/q.nts" --format hf --norms $norms -o "$tmp/$norms" 2>/dev/null; done
while read -r model path layer; do
    py forward "$model" "$tmp/acts.nts" "$path" "$layer" >"$tmp/py" 2>&1; ok $? "NumPy: path $path, layer $layer ($(tail -n 1 "$tmp/py"))"
done <<END
$tmp/new q 1
$tmp/new q 3
$tmp/old old 2
$tmp/old old 3
$M float 1
$M float 3
END
py hessian "$M" "$tmp/acts.nts" "$tmp/f/stats.3" 3 >"$tmp/py" 2>&1; ok $? "NumPy: X'X of layer 3 ($(tail -n 1 "$tmp/py"))"
nt-collect $q -m "$M" --tokens "$C" --want hessian,targets --acts-in "$tmp/acts.nts" -o "$tmp/s.nts" 2>/dev/null &&
    py same "$tmp/s.nts" "$tmp"/f/stats.[0-4] >"$tmp/py" 2>&1
ok $? "nt-collect --acts-in a file of all boundaries: the statistics of the runs of one layer each ($(tail -n 1 "$tmp/py"))"
for norms in new old; do
    awk -v a="$(py kl "$M" "$tmp/$norms" "$M/ids.json" 8)" -v b="$(py trailer "$tmp/joined.nts" kl_$norms)" \
        'BEGIN { d = a - b; print a, b; exit !(a > 0 && d < 1e-6 && d > -1e-6) }' >"$tmp/py"
    ok $? "NumPy: KL with the $norms norms across runs of one layer each ($(cat "$tmp/py"))"
done

# targets that nt-collect made: they spare a pass, change nothing but last bits, and do not leave nt-tweak
one() { # TOKENS QUANT OUT: layer 0 alone
    nt-tweak --progress plain -m "$M" --tokens "$1" --layers 0:1 --acts-out "$tmp/a0" --lr 1e-3 "$2" -o "$3" 2>"$tmp/err"
}
nt-collect $q -m "$M" --tokens "$C" --want hessian --layers 0:1 2>/dev/null |
    nt-quant $q -m "$M" -q gptq -b 3 -g 16 --layers 0:1 -o "$tmp/bare" 2>/dev/null
[ "$(py count target "$tmp/f/quant.3" "$tmp/bare" "$tmp/q.nts")" = "1 0 0" ]; ok $? "targets pass nt-quant and end in nt-tweak"
one "$C" "$tmp/bare" "$tmp/t0" && py near "$tmp/f/q.0" "$tmp/t0" >"$tmp/py" 2>&1
ok $? "norms are the same without them ($(tail -n 1 "$tmp/py"))"
one "$tmp/c2.nts" "$tmp/bare" "$tmp/t1" && one "$tmp/c2.nts" "$tmp/f/quant.0" "$tmp/t2" &&
    py near "$tmp/t1" "$tmp/t2" 0 >"$tmp/py" 2>&1 && grep -q "of other activations" "$tmp/err"
ok $? "targets of other tokens are not used ($(tail -n 1 "$tmp/py"))"

# more than the pipes hold: nt-tweak reads nothing until nt-collect, done with layer 0, opens the ring
"$PYTHON" -c 'import json; print(json.dumps([[(7 * i + 3 * j) % 96 for j in range(4)] for i in range(2000)]))' >"$tmp/many.json"
(C=$tmp/many.nts; "$PYTHON" tests/cli/nt-collect/tokens.py "$tmp/many.json" 4 "$C"; export -f ring; export q M C tmp
 timeout -k 1 200 bash -c 'ring 2 "$tmp/qm.nts" --iters 1') && [ -s "$tmp/qm.nts" ]
ok $? "targets of 2000 sequences go round"

# the other target needs the float boundary of the training sequences too
ring 2 "$tmp/qf.nts" --target float
by_layer "$tmp/g" --target float
py same "$tmp/qf.nts" "$tmp"/g/q.? >"$tmp/py" 2>&1; ok $? "--target float: the same records ($(tail -n 1 "$tmp/py"))"
finish
