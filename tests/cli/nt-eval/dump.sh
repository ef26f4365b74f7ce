# SPDX-License-Identifier: Apache-2.0
# --dump against PyTorch in float64: nll, logits, hidden states, norm gradients; names, shapes, order; from directories and GGUF.
. tests/cli/nt-eval/lib.bash
need_python

for m in bias llama3 linear; do
    "$PYTHON" tests/cli/nt-eval/dump.py ids $D/$m.expected.safetensors >"$tmp/ids.json"
    for path in $D/$m $D/$m.gguf; do
        [ -e "$path" ] || continue
        ev -m "$path" --ids "$tmp/ids.json" --dump nll,logits,hidden,norm-grads -o "$tmp/o.safetensors"
        ok $? "$path is dumped"
        "$PYTHON" tests/cli/nt-eval/dump.py compare $D/$m.expected.safetensors "$tmp/o.safetensors" "${path##*.}" >"$tmp/out" 2>&1
        ok $? "$path: every tensor is PyTorch's"
        sed 's/^/# /' "$tmp/out"
    done
done
"$PYTHON" tests/cli/nt-eval/dump.py ids $D/bias.expected.safetensors >"$tmp/ids.json"
ev -m $D/bias --ids "$tmp/ids.json" --dump nll -o - >"$tmp/a"; ev -m $D/bias --ids - --dump nll -o - <"$tmp/ids.json" >"$tmp/b" -j 1
[ -s "$tmp/a" ] && cmp -s "$tmp/a" "$tmp/b"; ok $? "ids from stdin, result to stdout, the same bytes with one thread"
echo '[[1,2,3],[4,5,6,7]]' >"$tmp/unequal"
ev -m $D/bias --ids "$tmp/unequal" --dump nll,norm-grads -o "$tmp/u" && [ -s "$tmp/u" ]; ok $? "unequal lengths for nll and gradients"
check_exit 65 'need equal lengths' ev -m $D/bias --ids "$tmp/unequal" --dump logits -o "$tmp/v"
echo '[[1,2,67]]' >"$tmp/big"; check_exit 65 'item 0, position 2' ev -m $D/bias --ids "$tmp/big" --dump nll -o "$tmp/v"
echo '[[1,2' >"$tmp/cut"; check_exit 65 "$tmp/cut: line" ev -m $D/bias --ids "$tmp/cut" --dump nll -o "$tmp/v"
echo '{}' >"$tmp/obj"; check_exit 65 'no array' ev -m $D/bias --ids "$tmp/obj" --dump nll -o "$tmp/v"
check_exit 2 'norms' ev -m $D/bias --ids "$tmp/ids.json" --dump nll,norms -o "$tmp/v"
check_exit 74 '/nowhere/v' ev -m $D/bias --ids "$tmp/ids.json" --dump nll -o /nowhere/v
[ ! -e "$tmp/v" ]; ok $? "no partial file"
finish
