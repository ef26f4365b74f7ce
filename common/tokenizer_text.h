/* SPDX-License-Identifier: Apache-2.0
 * Text on its way to a tokenizer's model: growing bytes, pieces, patterns, and the steps (normalizers,
 * pre-tokenizers) that tokenizer files describe; decoders are steps too. */
#ifndef NT_TOKENIZER_TEXT_H
#define NT_TOKENIZER_TEXT_H
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/err.h"

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
    STEP_STRIP_NONSPACING, /* BertNormalizer's kind of accents */
    STEP_CLEAN,            /* BertNormalizer: no control characters, every white space a space */
    STEP_CJK,              /* spaces around ideographs */
    STEP_NMT,
    STEP_CHARSMAP,
    STEP_PREPEND,
    STEP_REPLACE,
    STEP_SPLIT,
    STEP_CHUNKS, /* pieces of so many characters */
    STEP_SPACE_PREFIX,
    STEP_METASPACE, /* pre-tokenizers */
    STEP_BYTES,
    STEP_BYTE_FALLBACK,
    STEP_FUSE,
    STEP_STRIP_CHAR,
    STEP_WORDPIECE,
    STEP_WORD_END /* decoders */
};
enum behavior { SPLIT_ISOLATED, SPLIT_REMOVED, SPLIT_PREVIOUS, SPLIT_NEXT, SPLIT_CONTIGUOUS };
enum prepend { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };

struct step {
    enum step_kind kind;
    pcre2_code *re; /* REPLACE, SPLIT */
    char *text;     /* REPLACE: the new text; PREPEND; METASPACE: replacement; STRIP_CHAR: the character;
                       WORDPIECE: prefix; WORD_END: suffix; CHARSMAP: the map */
    size_t len;
    enum behavior behavior;
    bool invert, split;   /* SPLIT; METASPACE: cut before each replacement */
    enum prepend prepend; /* METASPACE */
    int left, right; /* STRIP: sides; STRIP_CHAR: how many; CHUNKS: characters in left; WORDPIECE: clean up */
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
/* One character of well-formed text; returns its length. */
size_t char_at(const char *s, size_t n, int32_t *c);

/* SentencePiece's table of character replacements: u32 size of a double array, the array, the replacements.
 */
int charsmap_check(const char *map, size_t n, const char *name, struct err *e) NT_MUST_CHECK;
void charsmap_apply(const char *map, size_t map_n, const char *p, size_t n, struct buf *out);
int base64_decode(const char *s, size_t n, struct buf *out); /* 0, or -1 */
#endif
