/* SPDX-License-Identifier: Apache-2.0
 * GGUF constants, and a file's key-values as raw bytes for writers that copy them.
 * checkpoint.meta holds the same key-values as JSON. What JSON cannot say: an unsigned number of 2^63 or more
 * becomes the nearest real; a float that is not finite becomes null; a byte of a string that is no part of
 * valid UTF-8 becomes U+10FF00 + byte (and the bytes of a genuine character from U+10FF00 on, and NUL, are
 * escaped the same way). gguf_unescape turns such text back into bytes. */
#ifndef NT_GGUF_H
#define NT_GGUF_H
#include "common/checkpoint.h"

enum gguf_type {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING, GGUF_ARRAY,
    GGUF_U64, GGUF_I64, GGUF_F64, GGUF_TYPES
};

#define GGUF_ALIGNMENT 32      /* when general.alignment does not say */
#define GGUF_NAME_MAX 63       /* bytes of a tensor's name */

struct gguf_kv {
    const char *key;         /* owned by the checkpoint */
    const uint8_t *raw;      /* the whole pair as it lies in the file: key, type, value */
    uint64_t n_raw;
    uint32_t type;           /* enum gguf_type */
    const uint8_t *value;    /* raw value, within raw */
};

/* Key-values of the (first part of the) file, in file order. c must be of format "gguf". */
const struct gguf_kv *gguf_kvs(const struct checkpoint *c, int *n);
/* Bytes of an escaped string; allocated, *n its length, NUL-terminated. */
char *gguf_unescape(const char *s, size_t *n);
#endif
