# SPDX-License-Identifier: Apache-2.0
# What make demo shows, on fewer tokens: three bits hurt the embedded model, two hurt it much more; tweaking its norms block by
# block wins some of that back, tweaking them through the whole model wins more. Each by a margin.
. tests/tap.bash
M=tests/data/embedded
"$O/tests/data/embedded/story" -s 5 -n 20000 >"$tmp/text"
nt-gen-calib -j 1 --progress none -m $M --scheme text --text "$tmp/text" -n 16 -T 256 --holdout 0.9 -o "$tmp/eval.nts" 2>/dev/null
"$O/tests/data/embedded/story" -s 7 -n 60000 >"$tmp/text" # not the model's own, which another CPU may write otherwise
nt-gen-calib -j 1 --progress none -m $M --scheme text --text "$tmp/text" -n 40 -T 256 -o "$tmp/c.nts" 2>/dev/null
nt-collect -j 1 --progress none -m $M "$tmp/c.nts" 2>/dev/null >"$tmp/stats"
for bits in 2 3; do
    nt-quant -j 1 --progress none -m $M -q gptq -b $bits -o "$tmp/q$bits.nts" "$tmp/stats" 2>/dev/null; ok $? "GPTQ at $bits bits"
done
nt-tweak -j 1 --progress none -m $M --tokens "$tmp/c.nts" --loss nmse --iters 4 "$tmp/q2.nts" -o "$tmp/nt.nts" 2>/dev/null
ok $? "nt-tweak block by block"
nt-tweak -j 1 --progress none -m $M --tokens "$tmp/c.nts" --scope model --final-norm --batch 4 --steps 20 --lr 3e-3 \
    "$tmp/nt.nts" -o "$tmp/model.nts" 2>/dev/null
ok $? "nt-tweak through the whole model"

kl() { nt-eval -j 1 --progress none -m $M --tokens "$tmp/eval.nts" --qweights "$1" --ref $M --no-drift 2>/dev/null | awk -F '\t' '$2 == "kl" { print $5 }'; }
below() { awk -v a="$1" -v b="$2" -v r="$3" 'BEGIN { exit !(a > 0 && a < r * b) }'; }
three=$(kl "$tmp/q3.nts") gptq=$(kl "$tmp/q2.nts") nt=$(kl "$tmp/nt.nts") model=$(kl "$tmp/model.nts")
below 0.02 "$three" 1; ok $? "KL of three bits: $three"
below "$three" "$gptq" 0.5; ok $? "of two: $gptq"
below "$nt" "$gptq" 0.95; ok $? "norms tweaked block by block: $nt"
below "$model" "$nt" 0.95; ok $? "through the whole model: $model"
finish
