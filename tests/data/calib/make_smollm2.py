#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_smollm2.py DIR > smollm2-greedy.json: greedy beginnings by transformers (made with 5.23.0, torch 2.15, float32) of
SmolLM2-135M-Instruct; DIR is the Hugging Face directory of the dequantized Q4_1 GGUF. First tokens are what nt-gen-calib's
llm-qat draws with seed 0: Philox, written out here."""
import json, sys
import torch
from transformers import AutoModelForCausalLM

ENDS = [0, 2]  # <|endoftext|>, <|im_end|>


def philox(seed, stream, counter):
    m = 0xFFFFFFFF
    c, k = [counter & m, counter >> 32, stream & m, stream >> 32], [seed & m, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & m, (a >> 32) ^ c[3] ^ k[1], a & m]
        k = [(k[0] + 0x9E3779B9) & m, (k[1] + 0xBB67AE85) & m]
    return c[1] << 32 | c[0]


model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
out = []
for i in range(12):
    ids = [philox(0, i, 1 << 32) * 49152 >> 64]
    while len(ids) < 3 + i % 3:
        with torch.no_grad():
            z = model(torch.tensor([ids])).logits[0, -1]
        z[ENDS] = -float("inf")
        ids.append(int(z.argmax()))
    out.append(ids)
print(json.dumps(out))
