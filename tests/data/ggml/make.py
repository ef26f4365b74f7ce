#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Random blocks of every ggml type with the values that the gguf Python package gives them: NAME.blocks, NAME.f32.
# Made with gguf 0.19.0 and numpy 2.4.6. Usage: make.py [OUTDIR [BLOCKS [SEED]]]
# Scales are finite halves of every size, subnormal, zero and negative ones included.
import os, sys
import numpy as np
from gguf import GGMLQuantizationType as T, GGML_QUANT_SIZES
from gguf.quants import dequantize

HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
          "IQ1_S": [0], "IQ1_M": [], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0], "IQ4_NL": [0],
          "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64], "MXFP4": [], "NVFP4": []}
out = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
want = int(sys.argv[2]) if len(sys.argv) > 2 else 0
rng = np.random.default_rng(int(sys.argv[3]) if len(sys.argv) > 3 else 20261122)
for name, at in HALVES.items():
    t = T[name]
    elems, size = GGML_QUANT_SIZES[t]
    n = want or (16 if elems == 32 else 3)
    b = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for a in at:
        h = rng.integers(0, 65536, n, dtype=np.uint16)
        h = np.where((h & 0x7C00) == 0x7C00, h & 0x83FF, h)  # no infinity, no NaN: they become subnormal
        b[:, a:a + 2] = h.astype("<u2").view(np.uint8).reshape(n, 2)
    if at:
        b[0, at[0]:at[0] + 2] = 0
    if name == "IQ1_M":  # its half lies in the high bits of four words
        b[:, 55] &= 0xBF
    y = dequantize(b, t).astype("<f4")
    b.tofile(os.path.join(out, name + ".blocks"))
    y.tofile(os.path.join(out, name + ".f32"))
