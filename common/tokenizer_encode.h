/* SPDX-License-Identifier: Apache-2.0
 * One call of tokenizer_encode: its state, and words to ids. */
#ifndef NT_TOKENIZER_ENCODE_H
#define NT_TOKENIZER_ENCODE_H
#include "common/tokenizer_impl.h"

struct symbol {
    int32_t id, prev, next; /* id < 0: bytes that are no token */
    uint32_t off, len;
};
struct candidate {
    uint32_t rank;
    int32_t at, left, right, id;
};
/* Unigram: the best way to the end of a character. */
struct best {
    double score;
    uint32_t from; /* UINT32_MAX: nobody got here */
    int32_t id;
};

struct encoder {
    const struct tokenizer *t;
    struct err *e;
    struct matcher m;
    int32_t *ids;
    size_t n, cap;
    struct symbol *sym;
    size_t sym_cap;
    struct candidate *heap;
    size_t heap_n, heap_cap;
    struct best *best;
    size_t best_cap;
    struct buf spell;
    /* words seen before: direct-mapped, the bytes in words, their ids in word_ids */
    struct seen {
        uint32_t word, first;
        uint16_t len, count;
    } * cache;
    size_t cache_mask;
    struct buf words;
    int32_t *word_ids;
    size_t word_ids_n, word_ids_cap;
    /* llama.cpp: the added tokens that occur in the text, in the order in which they take their places */
    int32_t *present;
    size_t n_present, present_cap;
    bool after_special;
};

void encoder_put(struct encoder *c, int32_t id);
/* One piece of text, in which the model sees its words. */
int encode_word(struct encoder *c, const char *s, size_t len) NT_MUST_CHECK;
/* Unigram, WordPiece, WordLevel (tokenizer_pieces.c): one word without the cache. */
int encode_pieces(struct encoder *c, const char *s, size_t len) NT_MUST_CHECK;
#endif
