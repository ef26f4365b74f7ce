/* SPDX-License-Identifier: Apache-2.0
 * Inside of the tokenizer, shared by tokenizer*.c only: the vocabulary, the merges, the steps before and
 * after them. */
#ifndef NT_TOKENIZER_IMPL_H
#define NT_TOKENIZER_IMPL_H
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include "common/tokenizer.h"

/* Growing bytes. */
struct buf {
    char *p;
    size_t n, cap;
};
void buf_put(struct buf *b, const char *p, size_t n);
void buf_clear(struct buf *b);

/* A piece of text: a range of a buffer. */
struct piece {
    size_t off, len;
};
struct pieces {
    struct piece *v;
    size_t n, cap;
};
void pieces_put(struct pieces *l, size_t off, size_t len);

/* What happens to text before the merges (normalizers, pre-tokenizers) and to tokens after them (decoders).
 */
enum step_kind {
    STEP_NFC,
    STEP_NFD,
    STEP_NFKC,
    STEP_NFKD,
    STEP_LOWER,
    STEP_STRIP,
    STEP_STRIP_ACCENTS,
    STEP_PREPEND,
    STEP_REPLACE,
    STEP_SPLIT,
    STEP_SPACE_PREFIX,
    STEP_METASPACE, /* pre-tokenizers */
    STEP_BYTES,
    STEP_BYTE_FALLBACK,
    STEP_FUSE,
    STEP_STRIP_CHAR /* decoders */
};
enum behavior { SPLIT_ISOLATED, SPLIT_REMOVED, SPLIT_PREVIOUS, SPLIT_NEXT, SPLIT_CONTIGUOUS };
enum prepend { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };

struct step {
    enum step_kind kind;
    pcre2_code *re; /* REPLACE, SPLIT */
    char *text;     /* REPLACE: the new text; PREPEND; METASPACE: replacement; STRIP_CHAR: the character */
    size_t len;
    enum behavior behavior;
    bool invert, split;   /* SPLIT; METASPACE: cut before each replacement */
    enum prepend prepend; /* METASPACE */
    int left, right;      /* STRIP: sides; STRIP_CHAR: how many */
};
struct steps {
    struct step *v;
    size_t n, cap;
};
struct step *steps_add(struct steps *s, enum step_kind kind);
void steps_clear(struct steps *s);

/* A pattern as Hugging Face tokenizers (Oniguruma) and llama.cpp understand it, for PCRE2; literal: no syntax
 * at all. */
pcre2_code *regex_compile(const char *pattern, size_t len, bool literal, struct err *e) NT_MUST_CHECK;

/* Per-call state of PCRE2, so that one tokenizer may be used by several threads. */
struct matcher {
    pcre2_match_context *context;
    pcre2_match_data *data;
    pcre2_jit_stack *stack;
};
void matcher_open(struct matcher *m);
void matcher_close(struct matcher *m);
/* 1 and the range of the next match at or after `from`, 0 none, -1 error. */
int matcher_next(struct matcher *m, const pcre2_code *re, const char *s, size_t n, size_t from, size_t *start,
                 size_t *end, struct err *e) NT_MUST_CHECK;

void text_repair(struct buf *out, const char *s, size_t n); /* appends with bad bytes replaced */
bool text_valid(const char *s, size_t n);
bool char_is_space(int32_t c); /* White_Space */
bool char_is_word(int32_t c);

/* out is overwritten by the normalized s[n]. */
int text_normalize(const struct steps *s, struct matcher *m, const char *p, size_t n, struct buf *out,
                   struct err *e) NT_MUST_CHECK;
/* Cuts text (which steps may rewrite) into pieces; first: it begins the whole input. */
int text_split(const struct steps *s, struct matcher *m, struct buf *text, bool first, struct pieces *out,
               struct err *e) NT_MUST_CHECK;

struct string {
    size_t off;
    uint32_t len;
};
struct added {
    int32_t id;
    char *text;
    size_t len;
    bool single_word, lstrip, rstrip, normalized;
};
struct merge {
    uint64_t key;
    uint32_t rank;
    int32_t id;
}; /* key = left << 32 | right; all ones = empty */

struct tokenizer {
    char *name; /* the file, for messages */
    int n;      /* ids are 0..n-1 */
    size_t n_strings,
        cap_strings;    /* further strings (n..) only occur inside merges: GGUF files may miss some */
    struct string *raw; /* tokens as the file spells them */
    struct string
        *bytes; /* what they stand for; off = SIZE_MAX: not made of the byte alphabet, never matched */
    char *blob;
    size_t blob_n, blob_cap;
    int32_t *hash;
    size_t hash_size; /* bytes -> id, open addressing, -1 = empty */
    struct merge *merges;
    size_t merges_size;
    int32_t byte_id[256]; /* single bytes, -1 none */
    bool *special, *is_added, *eog;
    bool byte_level, ignore_merges, byte_fallback, fuse_unk;
    bool gguf; /* llama.cpp's rules where they differ */
    int32_t unk, bos, eos;
    int32_t fallback_id[256]; /* <0xHH> */
    struct added *added;
    size_t n_added; /* longest first */
    bool added_first[256], added_first_normalized[256];
    struct steps normalizer, pre, decoder;
    int32_t *prefix, *suffix;
    size_t n_prefix, n_suffix; /* what special adds */
};

/* ---- building, in this order: alloc, strings, finish_vocab, merges, added ---- */
struct tokenizer *tokenizer_alloc(const char *name, int n);
int tokenizer_set_string(struct tokenizer *t, int id, const char *s, size_t len, struct err *e) NT_MUST_CHECK;
void tokenizer_respell(struct tokenizer *t, int id, const char *s, size_t len); /* what decoding gives */
void tokenizer_index(struct tokenizer *t); /* after byte_level is known and all strings are set */
int32_t tokenizer_find_raw(const struct tokenizer *t, const char *s,
                           size_t len); /* by the file's spelling, -1 */
void tokenizer_reserve_merges(struct tokenizer *t, size_t n);
/* The pair a b merges into one; the smaller the rank, the earlier. GGUF files may lack pieces, which are
 * made, and the first of two equal pairs counts; else the last one does, and what the vocabulary lacks is
 * returned: 1: a, 2: b, 3: both together; 0: nothing, the merge is there. */
int tokenizer_add_merge(struct tokenizer *t, uint32_t rank, const char *a, size_t an, const char *b,
                        size_t bn);
void tokenizer_add_token(struct tokenizer *t, const struct added *a); /* text is taken over */
void tokenizer_finish(struct tokenizer *t); /* sorts the added tokens, marks those that end a generation */

uint64_t text_hash(const char *s, size_t n);
/* The id of these bytes, or -1. */
int32_t tokenizer_find_bytes(const struct tokenizer *t, const char *s, size_t n);
/* What left and right merge into, or NULL. */
const struct merge *tokenizer_merge(const struct tokenizer *t, int32_t left, int32_t right);

/* Spelled like a token that ends a generation. */
bool tokenizer_looks_final(const char *s, size_t len);

/* The byte alphabet of GPT-2: the byte of a code point, or -1. */
int alphabet_byte(int32_t c);

int tokenizer_from_json(const json_t *j, const char *name, struct tokenizer **out,
                        struct err *e) NT_MUST_CHECK;
int tokenizer_from_gguf(const json_t *meta, const char *name, struct tokenizer **out,
                        struct err *e) NT_MUST_CHECK;
#endif
