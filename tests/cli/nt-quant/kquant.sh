# SPDX-License-Identifier: Apache-2.0
# kquant and krtn from the model to the file: the blocks that were optimised are the bytes of the GGUF file, K types in rows of
# 256 and the types of 32 in others; the file measures like the stream; other formats refuse.
. tests/tap.bash
need_python
export OMP_NUM_THREADS=1 # many short runs
q="--progress none" m=$tmp/m
mkdir "$m" && cp tests/data/embedded/tokenizer.json "$m"
# rows of 160 and, in down_proj, of 256
sed 's/"hidden_size": 128/"hidden_size": 160/; s/"intermediate_size": 192/"intermediate_size": 256/; s/"num_hidden_layers": 8/"num_hidden_layers": 2/
    s/"num_attention_heads": 4/"num_attention_heads": 5/; s/"num_key_value_heads": 2/"num_key_value_heads": 5/' tests/data/embedded/init/config.json >"$m/config.json"
check "calibration" nt-gen-calib $q -m "$m" --scheme text --text README.md -n 8 -T 128 -o "$tmp/c.nts"
check "statistics" nt-collect $q -m "$m" "$tmp/c.nts" --want "$(nt-quant -q kquant --needs)" -o "$tmp/s.nts"
echo '[[5, 6, 7, 8, 9, 10, 11, 12]]' >"$tmp/ids.json"

# left STREAM FILE SHORT LONG: every block of the stream stands in the file, with rows of q and k as GGUF has them
left() {
    "$PYTHON" - "$@" <<'END'
import sys
sys.path.insert(0, "tests/cli/nt-pack")
import numpy as np, oracle
stream, path, short, long = sys.argv[1:]
data, n = open(path, "rb").read(), 0
for kind, meta, raw in oracle.read_nts(stream)[1]:
    if kind != "QPart":
        continue
    assert meta["part"] == "data" and meta["dtype"] == (long if "down_proj" in meta["name"] else short), meta
    rows = np.frombuffer(raw, np.uint8).reshape(160 if "mlp" not in meta["name"] or "down" in meta["name"] else 256, -1)
    if "q_proj" in meta["name"] or "k_proj" in meta["name"]:
        rows = rows.reshape(5, 2, 16, -1).swapaxes(1, 2)
    assert data.count(rows.tobytes()) == 1, meta["name"]
    n += 1
assert n == 14, n
END
}
measures() { # the logits of the file are those of the stream
    nt-eval $q -m "$m" --qweights "$tmp/k.nts" --ids "$tmp/ids.json" --dump logits -o "$tmp/a" &&
        nt-eval $q -m "$tmp/k.gguf" --ids "$tmp/ids.json" --dump logits -o "$tmp/b" && cmp "$tmp/a" "$tmp/b"
}
while read -r b short long; do
    for how in kquant "kquant --act-order" "kquant --static-groups" krtn; do
        check "$how -b $b" nt-quant $q -m "$m" -q $how -b "$b" "$tmp/s.nts" -o "$tmp/k.nts" # a method and perhaps an option
        check "$how -b $b leaves" nt-pack $q -m "$m" "$tmp/k.nts" --format gguf -o "$tmp/k.gguf"
        check "as $short and $long, the very blocks" left "$tmp/k.nts" "$tmp/k.gguf" "$short" "$long"
    done
    check "-b $b: the file has the stream's logits" measures
done <<END
2 Q4_0 Q2_K
3 Q4_0 Q3_K
4 Q5_0 Q4_K
5 Q5_1 Q5_K
6 Q8_0 Q6_K
END

nt-quant $q -m "$m" -q kquant --act-order -b 3 -j 1 "$tmp/s.nts" -o "$tmp/1.nts" && nt-quant $q -m "$m" -q kquant --act-order -b 3 -j 3 "$tmp/s.nts" -o "$tmp/3.nts" &&
    cmp "$tmp/1.nts" "$tmp/3.nts"
ok $? "the same bytes from one thread and three"
for f in gptq awq compressed-tensors mlx; do
    try "blocks as $f" 65 "is not quantized uniformly: not possible in --format $f \(nt-quant -q gptq would quantize anew\)$" \
        nt-pack $q -m "$m" "$tmp/1.nts" --format $f -o "$tmp/out"
done
try "7 bits" 2 'K types have -b 2, 3, 4, 5 or 6, not 7' nt-quant $q -m "$m" -q krtn -b 7 "$tmp/s.nts" -o "$tmp/out"
finish
