# SPDX-License-Identifier: Apache-2.0
# Norms into checkpoints of 16-bit norms: what rounding does is counted, a tweak that it erases is refused; shards,
# links, provenance.
. tests/cli/nt-pack/lib.bash

quant -b 4 -g 32 --sym -o "$tmp/q.nts" && oracle retune "$tmp/q.nts" "$tmp/tiny.nts" positive new 0.0003 &&
    oracle retune "$tmp/q.nts" "$tmp/half.nts" positive new 0.0035 && oracle retune "$tmp/q.nts" "$tmp/big.nts" positive new 0.02
ok $? "streams made: gains near 1, steps of 0.0003, 0.0035, 0.02"
# 4-bit weights times scales of 11 bits are exact in bf16 only by chance: weights stay f32, norms are 16-bit
for t in bf16 f16; do pack -m $hf "$tmp/q.nts" --format hf --norm-dtype $t -o "$tmp/c-$t" 2>/dev/null; done
pack -m $hf "$tmp/q.nts" --format hf --norm-dtype bf16 --max-shard-size 16K -o "$tmp/c-shards" 2>/dev/null
pack -m $gguf "$tmp/q.nts" --format gguf -o "$tmp/c.gguf" 2>/dev/null
ok $? "checkpoints with bf16 and f16 norms, one in shards, a GGUF"

rounds() { # rounds NAME DTYPE STREAM FROM TO: what was printed is what the oracle finds
    oracle rounded "$tmp/$3.nts" "$4" "$5" "$2" >"$tmp/want" 2>"$tmp/err" && grep -E '^(changed|kept)' "$tmp/stdout" | cmp -s - "$tmp/want"
    ok $? "$1: rounded to nearest even; $(tr '\n\t' '; ' <"$tmp/want")$(tail -n 1 "$tmp/err")"
}
for s in half big; do for t in bf16 f16; do
    run "$s into $t" pack "$tmp/$s.nts" --norms-into "$tmp/c-$t" -o "$tmp/n-$s-$t"
    rounds "$s into $t" ${t^^} $s "$tmp/c-$t/model.safetensors" "$tmp/n-$s-$t/model.safetensors"
done; done
run "tiny into f16" pack "$tmp/tiny.nts" --norms-into "$tmp/c-f16" -o "$tmp/n-tiny-f16"
rounds "tiny into f16" F16 tiny "$tmp/c-f16/model.safetensors" "$tmp/n-tiny-f16/model.safetensors"
try "tiny into bf16 is refused" 65 'rounding to BF16 erases the tweak: .*nt-tweak --norm-dtype bf16' pack "$tmp/tiny.nts" --norms-into "$tmp/c-bf16" -o "$tmp/out"
run "tiny into F32 norms" pack "$tmp/tiny.nts" --norms-into "$tmp/c.gguf" -o "$tmp/n.gguf"
rounds "tiny into F32 norms" F32 tiny "$tmp/c.gguf" "$tmp/n.gguf"
run "half into F32 norms as bf16" pack "$tmp/half.nts" --norms-into "$tmp/c.gguf" --norm-dtype bf16 -o "$tmp/nb.gguf"
rounds "half into F32 norms as bf16" BF16 half "$tmp/c.gguf" "$tmp/nb.gguf"
try "tiny into F32 norms as bf16 is refused" 65 'rounding to BF16 erases' pack "$tmp/tiny.nts" --norms-into "$tmp/c.gguf" --norm-dtype bf16 -o "$tmp/out"
try "f32 into bf16 norms is refused" 65 'stored as BF16, and a copy' pack "$tmp/big.nts" --norms-into "$tmp/c-bf16" --norm-dtype f32 -o "$tmp/out"
pack -m $hf "$tmp/tiny.nts" --format overlay -o "$tmp/tiny.safetensors" 2>/dev/null
try "an overlay that rounding erases is refused" 65 'rounding to BF16 erases' pack --apply "$tmp/tiny.safetensors" -m "$tmp/c-bf16" -o "$tmp/out"
run "old norms are no tweak that could be erased" pack "$tmp/tiny.nts" --norms old --norms-into "$tmp/c-bf16" -o "$tmp/n-old"
cmp -s "$tmp/c-bf16/model.safetensors" "$tmp/n-old/model.safetensors"; ok $? "old norms: the same bytes"

run "sidecar of a directory" oracle sidecar "$tmp/n-big-bf16/nt-norms.json" "$tmp/c-bf16/model.safetensors" "$tmp/n-big-bf16/model.safetensors"
run "sidecar of a file" oracle sidecar "$tmp/n.gguf.nt-norms.json" "$tmp/c.gguf" "$tmp/n.gguf"
pack "$tmp/tiny.nts" --norms-into "$tmp/c.gguf" 2>/dev/null | cat >"$tmp/piped" || true
[ ! -e "$tmp/piped.nt-norms.json" ] && [ ! -e ./-.nt-norms.json ]; ok $? "no sidecar where there is no file"

head -c 1100000 /dev/zero >"$tmp/c-shards/large.bin"; echo '{"b": 2}' >"$tmp/c-shards/small.json"
run "into shards" pack "$tmp/big.nts" --norms-into "$tmp/c-shards" -o "$tmp/n-shards"
n=0; changed=0
for f in "$tmp"/c-shards/*.safetensors; do
    n=$((n + 1)); cmp -s "$f" "$tmp/n-shards/${f##*/}" || changed=$((changed + 1))
done
[ $n -gt 2 ] && [ $changed -gt 0 ] && [ $changed -lt $n ]; ok $? "shards: $changed of $n hold norms and changed"
[ "$(grep -c '"source_sha256"' "$tmp/n-shards/nt-norms.json")" -ge $changed ]; ok $? "shards: the sidecar names them"
[ "$tmp/c-shards/large.bin" -ef "$tmp/n-shards/large.bin" ] && ! [ "$tmp/c-shards/small.json" -ef "$tmp/n-shards/small.json" ] &&
    cmp -s "$tmp/c-shards/small.json" "$tmp/n-shards/small.json"
ok $? "shards: large files are linked, small ones copied"
ln -s "$PWD/$hf/config.json" "$tmp/link" && mkdir "$tmp/c-links" && for f in "$tmp"/c-bf16/*; do ln -s "$f" "$tmp/c-links/${f##*/}"; done
run "into a directory of links" pack "$tmp/big.nts" --norms-into "$tmp/c-links" -o "$tmp/n-links"
cmp -s "$tmp/n-links/model.safetensors" "$tmp/n-big-bf16/model.safetensors" && [ -f "$tmp/n-links/config.json" ] && [ ! -L "$tmp/n-links/model.safetensors" ]
ok $? "links are followed: files, not links, come out"
finish
