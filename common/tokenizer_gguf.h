/* SPDX-License-Identifier: Apache-2.0
 * What tokenizer_gguf*.c share: the vocabulary's keys, and the table of pre-tokenizers. */
#ifndef NT_TOKENIZER_GGUF_H
#define NT_TOKENIZER_GGUF_H
#include "common/tokenizer_impl.h"

enum { GGUF_PATTERNS = 6 };
struct gguf_pre {
    const char *names; /* space after each */
    const char
        *patterns[GGUF_PATTERNS]; /* applied one after the other, each to the pieces of the one before */
    bool ignore_merges, add_bos;
};
enum { GGUF_NORMAL = 1, GGUF_UNKNOWN = 2, GGUF_CONTROL = 3, GGUF_USER = 4, GGUF_UNUSED = 5, GGUF_BYTE = 6 };

json_t *gguf_get(const json_t *meta, const char *key); /* tokenizer.ggml.KEY */
bool gguf_flag(const json_t *meta, const char *key, bool missing);
/* The entry of a BPE vocabulary; NULL for SentencePiece's. -1: not supported. */
int gguf_find_pre(const json_t *meta, const char *name, const struct gguf_pre **p,
                  struct err *e) NT_MUST_CHECK;
/* The first name of entry i of the table of pre-tokenizers, in a static buffer; NULL after the last. */
const char *gguf_pre_name(int i);
/* Of token i, spelled s, as llama.cpp takes it; types may be NULL. */
int64_t gguf_type(const json_t *types, bool plain_end, size_t i, const char *s, size_t len);
bool gguf_plain_end(const json_t *meta); /* </s> is a token like any other */
bool gguf_is_added(int64_t type);        /* found in the text before anything else */
bool gguf_strips_right(const json_t *meta, const char *s, size_t len);
#endif
