# SPDX-License-Identifier: Apache-2.0
# nt-collect at its work: into nt-quant through a pipe, in shards through nt-stream merge, and when either end dies.
. tests/cli/nt-collect/lib.bash
all=hessian,sums,absmax,rows:50,targets
quant=(nt-quant $quiet -m $tiny -q gptq -b 4 -g 16)
collect=(nt-collect $quiet -m $tiny)

want=$(nt-quant -q gptq --needs)
[ "$want" = hessian ]; ok $? "nt-quant --needs gives a list for --want ($want)"
"${collect[@]}" "$tmp/c.nts" --want "$want" 2>"$tmp/err1" | "${quant[@]}" -o "$tmp/piped" 2>"$tmp/err2"
[ "${PIPESTATUS[*]}" = "0 0" ]; ok $? "nt-collect | nt-quant"
"${collect[@]}" "$tmp/c.nts" --want "$want" -o "$tmp/s.nts" && "${quant[@]}" "$tmp/s.nts" -o "$tmp/filed"
cmp -s "$tmp/piped" "$tmp/filed"; ok $? "the same bytes through a file"
cat "$tmp/c.nts" | "${collect[@]}" --want "$want" 2>/dev/null | cmp -s - "$tmp/s.nts"; ok $? "tokens from a pipe: the same bytes"

# shards
for i in 0 1 2; do "${collect[@]}" "$tmp/c.nts" --want $all --shard $i/3 -o "$tmp/p$i"; done
nt-stream merge "$tmp/p0" "$tmp/p1" "$tmp/p2" -o "$tmp/merged" 2>"$tmp/err1"
ok $? "nt-stream merge takes the shards $(cat "$tmp/err1")"
"${collect[@]}" "$tmp/c.nts" --want $all -o "$tmp/whole"
"$PYTHON" $here/stats.py same "$tmp/merged" "$tmp/whole" >"$tmp/cmp"
grep -qx 'names equal' "$tmp/cmp" && grep -qx 'counts equal' "$tmp/cmp"; ok $? "merged shards have the records and counts of the whole run"
d=$(awk '$1 == "worst" { print $2 }' "$tmp/cmp")
awk -v d="$d" 'BEGIN { exit !(d != "" && d < 1e-5) }'; ok $? "and its values to rounding (largest relative difference $d)"
for i in 0 1 2; do "${collect[@]}" -j 1 "$tmp/c.nts" --want $all --shard $i/3 -o "$tmp/again$i"; done
nt-stream merge "$tmp/again0" "$tmp/again1" "$tmp/again2" 2>/dev/null | cmp -s - "$tmp/merged"
ok $? "the same shard list gives the same bytes"
"${quant[@]}" "$tmp/merged" -o "$tmp/q.nts" 2>"$tmp/err1"; ok $? "nt-quant takes merged statistics"

# ends that die
"${collect[@]}" "$tmp/c.nts" --want $all 2>"$tmp/err1" | nt-quant -m $tiny -q nosuch -o "$tmp/never" 2>"$tmp/err2"
rc=("${PIPESTATUS[@]}")
[ "${rc[0]}" = 74 ] && [ "${rc[1]}" = 2 ] && [ ! -e "$tmp/never" ]; ok $? "a dead nt-quant ends nt-collect (exits ${rc[*]})"
cp -r $tiny "$tmp/bad"; "$PYTHON" $here/damage.py "$tmp/bad/model.safetensors" model.layers.1.mlp.up_proj.weight nan
nt-collect $quiet -m "$tmp/bad" "$tmp/c.nts" --want "$want" 2>"$tmp/err1" |
    nt-quant $quiet -m "$tmp/bad" -q gptq -b 4 -g 16 -o "$tmp/never" 2>"$tmp/err2"
rc=("${PIPESTATUS[@]}")
[ "${rc[0]}" = 65 ] && [ "${rc[1]}" = 65 ] && [ ! -e "$tmp/never" ]; ok $? "a failing nt-collect ends nt-quant (exits ${rc[*]})"
grep -q 'nt-collect.*up_proj.weight' "$tmp/err2"; ok $? "which knows why: $(tail -n 1 "$tmp/err2" | cut -c 1-160)"
finish
