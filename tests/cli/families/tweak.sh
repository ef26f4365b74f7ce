# SPDX-License-Identifier: Apache-2.0
# nt-tweak on blocks of every kind: which norm vectors are trained, and that the first step of training through the
# whole model goes where the gradients of nt-eval point, which run.sh compares with transformers.
. tests/tap.bash
need_python
q="--progress none"
py() { "$PYTHON" tests/cli/families/tweak.py "$@" 2>&1 | sed 's/^/# /'; return "${PIPESTATUS[0]}"; }

begin() { # MODEL
    py one "$1.calib" "$1.one" && "$PYTHON" tests/cli/nt-collect/tokens.py "$1.one" 0 "$1.t" &&
        nt-quant $q -m "$1" -q rtn -b 4 -g 8 -o "$1.q" 2>/dev/null &&
        nt-eval $q -m "$1" --qweights "$1.q" --ids "$1.one" --dump norm-grads -o "$1.g" 2>/dev/null
}
tweak() { nt-tweak $q -m "$1" --tokens "$1.t" "$1.q" -o "$1.w" "${@:2}" 2>/dev/null; }
model_scope() { tweak "$1" --scope model --loss ce --steps 1 --batch 1 --warmup 0 --clip 0 --lr 1e-2 "${@:2}"; }

"$PYTHON" tests/cli/families/families.py make "$tmp" >/dev/null; ok $? "models are made"
for name in gpt2 opt-350m bloom-post gpt-neox falcon-40b gemma3 olmo2-bias phi-qk cohere-qk glm4; do
    m=$tmp/$name qk=
    begin "$m"; ok $? "$name: quantized, gradients of the quantized model"
    case $name in gemma3 | olmo2-bias | phi-qk | cohere-qk) qk=qk ;; esac
    model_scope "$m" && py step "$m.w" "$m.g"; ok $? "$name: model scope, norms"
    model_scope "$m" --params "norms${qk:++qk}" --final-norm && py step "$m.w" "$m.g" final $qk
    ok $? "$name: model scope, the final norm${qk:+, those of q and k}"
    model_scope "$m" --params "norms${qk:++qk}" --final-norm --norms-step relative && py step "$m.w" "$m.g" final relative $qk
    ok $? "$name: model scope, relative steps"
    tweak "$m" --params "norms${qk:++qk}" --lr 1e-2 && py moved "$m.w" "$m.g" $qk; ok $? "$name: block scope"
    case $name in
    opt-350m | bloom-post | olmo2-bias)
        try "$name: the closed form has nothing to solve" 2 "no norm of .* is there for linears alone" \
            nt-tweak $q -m "$m" --tokens "$m.t" "$m.q" -o "$m.w" --opt closed-form ;;
    *) tweak "$m" --opt closed-form && py moved "$m.w" "$m.g"; ok $? "$name: closed form" ;;
    esac
    [ -n "$qk" ] || try "$name: no norms of q and k" 2 "has no norms of q and k" \
        nt-tweak $q -m "$m" --tokens "$m.t" "$m.q" -o "$m.w" --params norms+qk
done
finish
