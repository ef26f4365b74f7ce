# SPDX-License-Identifier: Apache-2.0
"""Walks NTS streams with python3-msgpack, knowing nothing of the tools but the documented format."""
import msgpack


def walk(path):
    """[(kind, meta, payload)], trailer"""
    records, trailer, current, data = [], None, None, b""
    with open(path, "rb") as f:
        for item in msgpack.Unpacker(f, raw=False, strict_map_key=False, max_buffer_size=2**31):
            if isinstance(item, list):
                current, data = item, b""
            elif isinstance(item, bytes):
                data += item
            elif isinstance(item, dict) and set(item) == {"xxh3", "n"}:
                records.append((current[2], current[3], data))
            elif isinstance(item, dict) and "status" in item:
                trailer = item
    return records, trailer
