#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Writes common/ggml_grids.c, the code books of ggml's IQ types, from the tables of the gguf Python package (0.19.0): one
# 16-bit word an entry, the k-th element's level in bits 2k (grids of 8) or 4k (grids of 4). Usage: make_grids.py >FILE
import numpy as np
from gguf import quants
print("/* SPDX-License-Identifier: Apache-2.0\n * Code books of ggml's IQ types, written by tests/data/ggml/make_grids.py: one word an entry, the level of\n"
      " * element k in bits 2k (books of 8 elements) or 4k (of 4). Levels are in ggml_iq.c. */\n#include \"common/ggml_types.h\"")
for name in ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S"):
    c = getattr(quants, name)
    c.init_grid()
    g = c.grid.reshape(c.grid_shape)
    level = np.searchsorted(np.array(c.grid_map), g.astype(int))
    step = 16 // c.grid_shape[1]
    words = (level << (step * np.arange(c.grid_shape[1]))).sum(1)
    print(f"\nconst uint16_t ggml_grid_{name.lower()}[{len(words)}] = {{")
    for i in range(0, len(words), 16):
        print("    " + ", ".join(str(w) for w in words[i:i + 16]) + ",")
    print("};")
