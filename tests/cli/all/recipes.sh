# SPDX-License-Identifier: Apache-2.0
# The commands of nt-recipes.7, as they are printed there, on the embedded model and quantized checkpoints of it: every copy
# differs in its norms alone, and the held-out text says that it is better. Training is cut short by one more option.
. tests/tap.bash
export OMP_NUM_THREADS=1
root=$PWD model=$PWD/tests/data/embedded q="--progress none"
prose() { "$O/tests/data/embedded/story" -s "$1" -n "$2"; }
cd "$tmp" || exit
ln -s "$model" float
(cd "$root" && prose 11 100000) >prose.txt
(cd "$root" && prose 12 20000) >text.txt
mkdir bin
# the tools as they are, but for fewer steps, and windows that the model was made for
printf '#!/bin/sh\nexec %s --steps 8 --batch 4 --warmup 2 --lr 3e-3 --eval-every 8 --progress none "$@"\n' "$root/$O/bin/nt-tweak" >bin/nt-tweak
printf '#!/bin/sh\nm=$2; exec %s --progress none --no-drift -m "$m" --ref float --tokens eval.nts\n' "$root/$O/bin/nt-eval" >bin/nt-eval
chmod +x bin/nt-tweak bin/nt-eval
export PATH=$tmp/bin:$root/pipelines:$root/$O/bin:$PATH

nt-gen-calib $q -m float --scheme text --text text.txt -n 12 -T 256 --holdout 0.9 -o eval.nts 2>err
nt-quant $q -m float -q rtn -b 2 -g 32 --sym -o q.nts 2>err &&
    nt-pack $q -m float q.nts --format gptq --norm-dtype f16 -o theirs-gptq 2>err &&
    nt-pack $q -m float q.nts --format compressed-tensors --norm-dtype bf16 -o theirs-ct 2>err &&
    nt-pack $q -m float q.nts --format mlx --norm-dtype f16 -o theirs-mlx 2>err
ok $? "a quantized model in three layouts"
commands() { # SECTION: the lines of its first .nf block
    awk -v s=".SH $1" '$0 == s { on = 1 } on && /^\.fi/ { exit } on && body { print } on && /^\.nf/ { body = 1 }' "$root/man/nt-recipes.7"
}
value() { awk -F '\t' -v m="$1" '$2 == m { print $5; exit }' "$2"; }
recipe() { # SECTION THEIRS BETTER
    commands "$1" >steps
    [ "$(wc -l <steps)" = 3 ]; ok $? "$1: three commands"
    rm -f calib.nts
    while read -r line; do
        eval "$line" >out 2>err </dev/null
        rc=$?; ok $rc "$1: ${line%% *}"; [ $rc = 0 ] || tail -n 3 err | sed "s|^|# |"
    done <steps
    nt-eval -m "$2" >before 2>err
    awk -v a="$(value kl before)" -v b="$(value kl out)" 'BEGIN { exit !(a > 0 && b > 0 && b < 0.97 * a) }'
    ok $? "$1: the divergence falls from $(value kl before) to $(value kl out)"
    [ "$(wc -c <"$2/model.safetensors")" = "$(wc -c <"$3/model.safetensors")" ] &&
        [ "$(cmp -l "$2/model.safetensors" "$3/model.safetensors" | wc -l)" -le $((17 * 128 * 2)) ] &&
        ! cmp -s "$2/model.safetensors" "$3/model.safetensors"
    ok $? "$1: no more bytes change than norms have"
}
recipe "VLLM, SGLANG, TRANSFORMERS" theirs-ct better-ct
recipe "GPTQMODEL, AUTOROUND, AUTOAWQ" theirs-gptq better-gptq
recipe "MLX" theirs-mlx better-mlx

improve.sh float theirs-mlx calib.nts better-mlx >out 2>err
[ $? = 74 ] && grep -q 'is there already' err; ok $? "what is there is not overwritten"
improve.sh float theirs-mlx calib.nts none --lr 1e-9 >out 2>err
[ $? = 1 ] && [ ! -e none ] && grep -q 'no gain' err; ok $? "no gain, no copy"
cd "$root" || exit
finish
