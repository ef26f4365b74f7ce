# SPDX-License-Identifier: Apache-2.0
# The real model (NT_SMOLLM2 = its GGUF): greedy beginnings as transformers gives them, tests/data/calib/make_smollm2.py.
. tests/cli/nt-gen-calib/lib.bash
need NT_SMOLLM2
need_python
nt-gen-calib --progress none -m "$NT_SMOLLM2" --scheme llm-qat -n 12 -T 8 -o "$tmp/q.nts"; ok $? "llm-qat runs on the real model"
"$PYTHON" $here/check.py --dump "$tmp/q.nts" >"$tmp/ids"
"$PYTHON" - "$tmp/ids" tests/data/calib/smollm2-greedy.json <<'PY'
import json, sys
got = [json.loads(line) for line in open(sys.argv[1])]
want = json.load(open(sys.argv[2]))
bad = [(g, w) for g, w in zip(got, want) if g[:len(w)] != w]
print("#", len(got), "sequences,", len(bad), "differ", bad[:2])
sys.exit(1 if bad or len(got) != 12 else 0)
PY
ok $? "first tokens and greedy beginnings equal those of transformers"
finish
