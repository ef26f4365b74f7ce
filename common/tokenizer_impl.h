/* SPDX-License-Identifier: Apache-2.0
 * Inside of the tokenizer, shared by tokenizer*.c only: the vocabulary, the merges, the steps before and
 * after them. */
#ifndef NT_TOKENIZER_IMPL_H
#define NT_TOKENIZER_IMPL_H
#include "common/tokenizer.h"
#include "common/tokenizer_text.h"
#include "common/tokenizer_trie.h"

#define SPACE_MARK "\xE2\x96\x81"

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

enum token_model { MODEL_BPE, MODEL_SPM, MODEL_UNIGRAM, MODEL_WORDPIECE, MODEL_WORDLEVEL };

struct tokenizer {
    char *name; /* the file, for messages */
    enum token_model model;
    int n; /* ids are 0..n-1 */
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
    bool gguf;                /* llama.cpp's rules where they differ */
    bool marks_spaces;        /* SPM: every space of a text becomes SPACE_MARK */
    bool space_prefix;        /* SPM: and there is one before the text and after every added token */
    bool whole_lines;         /* gemma4: a run of line ends that is a token is not merged */
    bool cuts;                /* no token goes on over SPACE_MARK after another character: words end there */
    uint32_t *rank;           /* SPM: the smaller the earlier, from the scores */
    double *score, min_score; /* Unigram */
    struct trie trie;         /* Unigram: all pieces */
    char *subword, *word_end; /* BPE, WordPiece: what marks tokens inside and at the end of words, or NULL */
    size_t max_chars;         /* WordPiece: longer words are unknown */
    bool *is_byte, *unused;   /* GGUF, or NULL: <0xHH> stands for a byte; decodes to nothing */
    int32_t unk, bos, eos;
    int32_t fallback_id[256]; /* <0xHH> */
    struct added *added;
    size_t n_added;                                /* longest first */
    struct trie added_trie, added_trie_normalized; /* values: indexes of added */
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
