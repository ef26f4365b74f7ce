# SPDX-License-Identifier: Apache-2.0
# -t prints any stream: header, records with numbers, trailer.
. tests/cli/nt-pack/lib.bash
quant -b 4 -g 32 --sym -o "$tmp/w4.nts" && oracle retune "$tmp/w4.nts" "$tmp/nt.nts" positive new
ok $? "stream made"
run "-t" pack -t "$tmp/nt.nts"
cp "$tmp/stdout" "$tmp/text"
head -n 1 "$tmp/text" | grep -q '^header	{"kind": "qweights"'; ok $? "the header comes first"
tail -n 1 "$tmp/text" | grep -q '^trailer	{.*"verdict": "positive"'; ok $? "the trailer comes last"
"$PYTHON" - "$tmp/nt.nts" "$tmp/text" <<'P'
import sys; sys.path.insert(0, "tests/cli/nt-pack")
import numpy as np, oracle
want = [np.frombuffer(p, "<f4") for k, m, p in oracle.read_nts(sys.argv[1])[1] if k == "Norm"]
lines = open(sys.argv[2]).read().split("\n")
got = [np.array(lines[i + 2].split(), "<f4") for i, l in enumerate(lines) if l.split("\t")[2:3] == ["Norm"]]
assert len(got) == len(want) > 0 and all((a == b).all() for a, b in zip(got, want))
P
ok $? "its numbers are those of the stream, to the last bit"
[ -s "$tmp/text" ] && nt-pack -t <"$tmp/nt.nts" | cmp -s - "$tmp/text"; ok $? "stdin gives the same text"
run "--format list" pack --format list
[ "$(cut -d' ' -f1 "$tmp/stdout" | tr '\n' ' ')" = "awq compressed-tensors gguf gptq gptq-v2 hf mlx overlay same " ]; ok $? "--format list names the formats"
finish
