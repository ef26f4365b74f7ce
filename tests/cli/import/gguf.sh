# SPDX-License-Identifier: Apache-2.0
# GGUF files of every type: split ones are the same model, parts that disagree are refused, norms of any float type take new
# values.
. tests/tap.bash
export OMP_NUM_THREADS=1 # many short runs
need_python
lay() { "$PYTHON" tests/cli/import/layouts.py "$@"; }
echo '[[1, 2, 3, 4]]' >"$tmp/ids.json"
logits() { nt-eval -m "$1" --ids "$tmp/ids.json" --dump logits -o "$2" --progress none; }

lay gguf "$tmp/one.gguf" && lay split "$tmp/one.gguf" "$tmp/s"; ok $? "a file and its three parts are made"
check "the file as a model" logits "$tmp/one.gguf" "$tmp/one.logits"
check "its parts as a model" logits "$tmp/s-00001-of-00003.gguf" "$tmp/s.logits"
cmp "$tmp/one.logits" "$tmp/s.logits"; ok $? "the same logits"
import() { nt-quant -q import "$1" --progress none -o "$2" && nt-pack -m "$1" "$2" --format hf --dtype f32 -o "$2.hf" --progress none; }
check "the file is imported" import "$tmp/one.gguf" "$tmp/one.nts"
check "the parts are imported" import "$tmp/s-00001-of-00003.gguf" "$tmp/s.nts"
cmp "$tmp/one.nts.hf/model.safetensors" "$tmp/s.nts.hf/model.safetensors"; ok $? "the same weights"

same() { nt-pack --format same "$1" -o "$2" --progress none; }
check "the file again, from its stream alone" eval 'same "$tmp/one.nts" "$tmp/same.gguf" && cmp "$tmp/one.gguf" "$tmp/same.gguf"'
check "and the parts" eval 'same "$tmp/s.nts" "$tmp/same" && for i in 1 2 3; do cmp "$tmp/s-0000$i-of-00003.gguf" "$tmp/same/s-0000$i-of-00003.gguf" || exit; done'

refused() { # PATTERN CHANGE...
    rm -f "$tmp"/d-*; lay split "$tmp/one.gguf" "$tmp/d" "${@:2}"
    try "parts with ${*:2}" 65 "$1" logits "$tmp/d-00001-of-00003.gguf" "$tmp/out"
}
refused 'd-00002-of-00003.gguf: does not say that it is part 2 of 3' 'no=(1, 2)'
refused 'd-00003-of-00003.gguf: does not say that it is part 3 of 3' 'count=(2, 4)'
refused 'must be called' 'count=(0, 2)'
refused 'part 2 of a split model' 'no=(0, 1)'
refused 'hold 38 tensors, the first says 39' 'tensors=(0, 39)'
refused 'is there twice' 'twice=1' 'tensors=(0, 39)'
gone() { rm -f "$tmp"/d-*; lay split "$tmp/one.gguf" "$tmp/d"; "$@"; }
gone rm "$tmp/d-00002-of-00003.gguf"
try "a part that is missing" 74 'd-00002-of-00003.gguf: No such file' logits "$tmp/d-00001-of-00003.gguf" "$tmp/out"
gone truncate -s 20 "$tmp/d-00003-of-00003.gguf"
try "a part that is cut" 65 'd-00003-of-00003.gguf: truncated' logits "$tmp/d-00001-of-00003.gguf" "$tmp/out"
gone cp "$tmp/one.gguf" "$tmp/d-00002-of-00003.gguf"
try "a part that is the whole file" 65 'does not say that it is part 2 of 3' logits "$tmp/d-00001-of-00003.gguf" "$tmp/out"
try "a later part" 65 'part 2 of a split model: give the first' logits "$tmp/s-00002-of-00003.gguf" "$tmp/out"

# ---- norms that are not F32 ----

for t in F16 BF16; do
    g="$tmp/$t.gguf"
    lay gguf "$g" $t; ok $? "a file with norms in $t"
    check "$t: imported" nt-quant -q import "$g" --progress none -o "$tmp/$t.nts"
    "$PYTHON" tests/cli/nt-pack/oracle.py retune "$tmp/$t.nts" "$tmp/$t-new.nts" positive new
    check "$t: norms-into" nt-pack "$tmp/$t-new.nts" --norms-into "$g" -o "$tmp/$t-new.gguf" --progress none
    check "$t: --format same without the file" eval 'same "$tmp/$t-new.nts" "$tmp/$t-same.gguf" && cmp "$tmp/$t-new.gguf" "$tmp/$t-same.gguf"'
    check "$t: every byte but the norms' stays, the norms are the new ones rounded" lay norms "$tmp/$t-new.nts" "$g" "$tmp/$t-new.gguf" $t
done
finish
