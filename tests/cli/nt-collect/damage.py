# SPDX-License-Identifier: Apache-2.0
"""Replaces the first element of a BF16 tensor of a safetensors file: damage.py FILE TENSOR VALUE."""
import json
import struct
import sys

path, name, value = sys.argv[1:]
with open(path, "rb") as f:
    data = bytearray(f.read())
n, = struct.unpack("<Q", data[:8])
at = 8 + n + json.loads(data[8:8 + n])[name]["data_offsets"][0]
data[at:at + 2] = struct.pack("<f", float(value))[2:]
with open(path, "wb") as f:
    f.write(data)
