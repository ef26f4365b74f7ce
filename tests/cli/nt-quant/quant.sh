# SPDX-License-Identifier: Apache-2.0
# nt-quant from the outside: lists, RTN against NumPy, GPTQ on nt-collect's statistics, threads, layers, refusals.
. tests/tap.bash
here=tests/cli/nt-quant model=tests/data/model/llama3 other=tests/data/model/linear
# refuse NAME CODE PATTERN COMMAND...: exit status, a last line that matches, nothing left behind
refuse() {
    local name=$1 code=$2 pattern=$3 rc; shift 3
    rm -f "$tmp"/out*
    "$@" -o "$tmp/out.nts" >"$tmp/stdout" 2>"$tmp/stderr"; rc=$?
    [ "$rc" = "$code" ] && tail -n 1 "$tmp/stderr" | grep -qE "^nt-quant: .*$pattern" && [ -z "$(ls "$tmp"/out* 2>/dev/null)" ] &&
        [ ! -s "$tmp/stdout" ]
    ok $? "$name (exit $rc: $(tail -n 1 "$tmp/stderr" | cut -c 1-160))"
}
python=0
"$PYTHON" -c 'import ctypes, msgpack, numpy; ctypes.CDLL("libxxhash.so.0")' 2>/dev/null || python=1
quant() { nt-quant --progress none "$@"; }

# ---- lists ----
nt-quant -q list >"$tmp/list" && cut -d' ' -f1 "$tmp/list" | sort -c && grep -q '^gptq ' "$tmp/list" && grep -q '^rtn ' "$tmp/list"
ok $? "-q list needs no model; a method a line, sorted"
[ "$(nt-quant -q gptq --needs)" = hessian ] && [ -z "$(nt-quant -q rtn --needs)" ]; ok $? "--needs"
echo '*.q_proj.* gptq 4 32' >"$tmp/plan"
[ "$(nt-quant -q rtn --plan "$tmp/plan" --needs)" = hessian ]; ok $? "--needs knows the plan"

# ---- RTN ----
for o in "-b 3 -g 8:3 8 asym f16" "-b 4 -g 32 --sym:4 32 sym f16" "-b 2 -g 0 --scale-dtype f32:2 0 asym f32" \
         "-b 5 -g 12:5 12 asym f16" "-b 8 -g 32 --sym --scale-dtype f32 --f64:8 32 sym f32"; do
    quant -m $model -q rtn ${o%%:*} -o "$tmp/r.nts" </dev/null; rc=$?
    if [ $python != 0 ]; then skip "$PYTHON lacks msgpack, numpy or libxxhash"; continue; fi
    got=$("$PYTHON" $here/rtn.py "$tmp/r.nts" $model/model.safetensors ${o#*:} 2>&1 | tail -n 1)
    [ $rc = 0 ] && [ "$got" = "same 21" ]; ok $? "rtn ${o%%:*}: scales, zeros, codes, norms are NumPy's ($got)"
done
quant -m $model.gguf -q rtn -b 3 -g 8 >"$tmp/g.nts" && quant -m $model -q rtn -b 3 -g 8 | cmp -s - "$tmp/g.nts"
[ -s "$tmp/g.nts" ]; ok $? "a GGUF model, to stdout"
left=$(echo untouched | { quant -m $model -q rtn -o "$tmp/r.nts"; cat; })
[ "$left" = untouched ]; ok $? "a method without needs leaves standard input alone"
quant -m $model -q rtn --layers 1:2 -o "$tmp/r1.nts" && [ "$(stat -c %s "$tmp/r1.nts")" -lt "$(stat -c %s "$tmp/r.nts")" ]
ok $? "--layers 1:2"
quant -m $model -q rtn -j 1 -b 3 --clip mse -o "$tmp/a.nts" && quant -m $model -q rtn -j 4 -b 3 --clip mse -o "$tmp/b.nts" &&
    cmp -s "$tmp/a.nts" "$tmp/b.nts"; ok $? "1 and 4 threads give the same bytes"

# ---- refusals that need no statistics ----
refuse "no method" 2 "no method" nt-quant -m $model
refuse "an unknown method" 2 "unknown method 'x'" nt-quant -m $model -q x
refuse "no model" 2 "no model" nt-quant -q rtn
refuse "9 bits" 2 "2..8" nt-quant -m $model -q rtn -b 9
refuse "a negative group" 2 "group" nt-quant -m $model -q rtn -g -1
refuse "an operand for rtn" 2 "reads no statistics" nt-quant -m $model -q rtn stats.nts
refuse "two operands" 2 "one stats stream" nt-quant -m $model -q gptq a b
refuse "layers beyond the model" 2 "only 3 layers" nt-quant -m $model -q rtn --layers 3:9
quant -m "$tmp/nonexistent" -q rtn 2>"$tmp/stderr" >"$tmp/stdout"; [ $? != 0 ] && grep -q "nonexistent: No such file" "$tmp/stderr"
ok $? "no such model"
echo '* none 4 32' >"$tmp/plan"
refuse "a plan with an unknown method" 65 "plan:1: unknown method" nt-quant -m $model -q rtn --plan "$tmp/plan"
refuse "too little memory allowed" 75 "max-mem" nt-quant -m $model -q rtn --max-mem 1K
refuse "no stream on stdin" 65 "" nt-quant -m $model -q gptq </dev/null
quant -m $model -q rtn -o "$tmp/no/such/dir" 2>/dev/null; [ $? = 74 ]; ok $? "an output that cannot be made is exit 74"
quant -m $model -q rtn >/dev/full 2>"$tmp/stderr"; [ $? = 74 ]; ok $? "a full disk is exit 74"
printf '*.nothing rtn 4 32\n' >"$tmp/plan"
nt-quant -m $model -q rtn --plan "$tmp/plan" -o "$tmp/r.nts" 2>&1 | grep -q "no tensor matches"
ok $? "a rule that matches nothing is reported"

# ---- signals ----
mkfifo "$tmp/fifo"
rm -f "$tmp"/out*
struck TERM 'waits $pid' nt-quant -m $model -q gptq "$tmp/fifo" -o "$tmp/out.nts"
[ $? = 143 ]; ok $? "SIGTERM while nobody opens the FIFO is exit 143"
exec 7<>"$tmp/fifo"
struck TERM 'has_open $pid "$tmp/fifo" && waits $pid' nt-quant -m $model -q gptq "$tmp/fifo" -o "$tmp/out.nts" 7>&-
[ $? = 143 ] && [ -z "$(ls "$tmp"/out* 2>/dev/null)" ]; ok $? "SIGTERM while waiting for statistics is exit 143, no file left"
exec 7>&-

# ---- weights that are not finite ----
mkdir "$tmp/nan"; cp $model/config.json "$tmp/nan"
if [ $python = 0 ]; then
    "$PYTHON" - $model/model.safetensors "$tmp/nan/model.safetensors" <<'EOF'
import json, struct, sys
data = bytearray(open(sys.argv[1], "rb").read())
n = struct.unpack("<Q", data[:8])[0]
t = json.loads(data[8:8 + n])["model.layers.1.mlp.up_proj.weight"]
width = {"F32": 4, "BF16": 2}[t["dtype"]]
at = 8 + n + t["data_offsets"][0] + 5 * width
data[at + width - 2:at + width] = b"\xc0\x7f"
open(sys.argv[2], "wb").write(data)
EOF
    refuse "a NaN among the weights" 65 "model.layers.1.mlp.up_proj.weight.*finite" nt-quant -m "$tmp/nan" -q rtn
fi

# ---- GPTQ ----
if [ $python = 0 ] && [ -x "$(command -v nt-collect)" ]; then
    "$PYTHON" -c 'import json; print(json.dumps([[(i * 37 + j * j) % 60 for j in range(24)] for i in range(9)]))' >"$tmp/ids.json"
    "$PYTHON" tests/cli/nt-collect/tokens.py "$tmp/ids.json" 1 "$tmp/c.nts"
    nt-collect --progress none -m $model "$tmp/c.nts" --want "$(nt-quant -q gptq --needs)" -o "$tmp/s.nts"
    quant -m $model -q gptq -b 3 -g 8 "$tmp/s.nts" -o "$tmp/q.nts"; ok $? "gptq from a file"
    quant -m $model -q gptq -b 3 -g 8 <"$tmp/s.nts" | cmp -s - "$tmp/q.nts"; ok $? "gptq from stdin to stdout: the same bytes"
    quant -j 3 -m $model -q gptq -b 3 -g 8 "$tmp/s.nts" | cmp -s - "$tmp/q.nts"; ok $? "gptq with 3 threads: the same bytes"
    quant -m $model -q gptq -b 3 -g 8 --act-order "$tmp/s.nts" -o "$tmp/qa.nts" && ! cmp -s "$tmp/qa.nts" "$tmp/q.nts"
    ok $? "gptq --act-order is something else"
    quant -m $model -q gptq --layers 2:3 "$tmp/s.nts" -o "$tmp/q2.nts"; ok $? "gptq of one layer from statistics of all"
    "$PYTHON" -c 'import sys; sys.stdout.buffer.write(open(sys.argv[1], "rb").read())' "$tmp/q.nts" | grep -q tokens
    ok $? "the header names the tokens"
    echo '*.layers.1.* keep' >"$tmp/plan"
    nt-quant -m $model -q gptq -b 3 -g 8 --plan "$tmp/plan" "$tmp/s.nts" 2>"$tmp/stderr" >"$tmp/qk.nts" &&
        grep -aq plain "$tmp/qk.nts" && ! grep -aq plain "$tmp/q.nts"
    ok $? "a plan that keeps a layer"
    refuse "statistics of another model" 65 "another model" nt-quant -m $other -q gptq "$tmp/s.nts"
    refuse "a tokens stream" 65 "tokens" nt-quant -m $model -q gptq "$tmp/c.nts"
    nt-collect --progress none -m $model "$tmp/c.nts" --want hessian --layers 0:2 -o "$tmp/s2.nts"
    refuse "a missing layer" 65 "no statistics of layer 2" nt-quant -m $model -q gptq "$tmp/s2.nts"
    nt-collect --progress none -m $model "$tmp/c.nts" --want sums -o "$tmp/s3.nts"
    refuse "no Hessian among the statistics" 65 "no hessian" nt-quant -m $model -q gptq "$tmp/s3.nts"
    nt-collect --progress none -m "$tmp/nan" "$tmp/c.nts" --want hessian 2>/dev/null | cat >"$tmp/bad.nts"
    refuse "an upstream that failed" 65 "bad.nts.*finite" nt-quant -m "$tmp/nan" -q gptq "$tmp/bad.nts"
    size=$(stat -c %s "$tmp/s.nts")
    for at in 5 200 $((size / 2)) $((size - 7)); do
        head -c "$at" "$tmp/s.nts" >"$tmp/cut.nts"
        refuse "statistics cut at $at of $size bytes" 65 "cut.nts" nt-quant -m $model -q gptq "$tmp/cut.nts"
    done
    "$PYTHON" -c 'import json; print(json.dumps([[(i * 37 + j * j) % 60 for j in range(12)] for i in range(2)]))' >"$tmp/ids.json"
    "$PYTHON" tests/cli/nt-collect/tokens.py "$tmp/ids.json" 0 "$tmp/c.nts"
    nt-collect --progress none -m $model "$tmp/c.nts" --want hessian 2>/dev/null | nt-quant -m $model -q gptq -b 3 -o "$tmp/q.nts" 2>"$tmp/stderr"
    grep -q "24 tokens for 32 inputs" "$tmp/stderr"; ok $? "fewer tokens than inputs is a warning"
else
    skip "GPTQ: $PYTHON lacks msgpack or numpy, or there is no nt-collect"
fi
finish
