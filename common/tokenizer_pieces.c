/* SPDX-License-Identifier: Apache-2.0
 * Words to ids without merging: Unigram (the likeliest pieces), WordPiece (the longest piece first) and whole
 * words. */
#include <string.h>
#include "common/mem.h"
#include "common/tokenizer_encode.h"

#define UNKNOWN_PENALTY 10.0 /* below the least likely piece */

static size_t char_length(const char *s, size_t n)
{
    size_t k = 1;
    while (k < n && ((unsigned char)s[k] & 0xC0) == 0x80) k++;
    return k;
}

static void offer(struct best *b, double score, size_t from, int32_t id)
{
    if (b->from == UINT32_MAX || score > b->score) *b = (struct best){score, (uint32_t)from, id};
}

/* The best path to every end of a character, from left to right. */
static int find_paths(struct encoder *c, const char *s, size_t len)
{
    const struct tokenizer *t = c->t;
    if (len + 1 > c->best_cap) c->best = mem_grow(c->best, &c->best_cap, len + 1, sizeof *c->best);
    for (size_t i = 1; i <= len; i++) c->best[i].from = UINT32_MAX;
    c->best[0] = (struct best){0, 0, 0};
    for (size_t i = 0, k; i < len; i += k) {
        double here = c->best[i].score;
        bool single = false;
        k = char_length(s + i, len - i);
        const struct trie_edge *edge;
        uint32_t node = 0;
        for (size_t p = i; p < len && (edge = trie_step(&t->trie, node, (unsigned char)s[p]));
             node = edge->child) {
            p++;
            if (edge->value < 0) continue;
            offer(&c->best[p], here + t->score[edge->value], i, edge->value);
            single |= p == i + k;
        }
        if (single) continue;
        if (t->unk < 0)
            return err_set(c->e, NT_EXIT_DATA, "the character \"%.*s\" is no piece, and there is no unk_id",
                           (int)k, s + i);
        offer(&c->best[i + k], here + t->min_score - UNKNOWN_PENALTY, i, t->unk);
    }
    return 0;
}

/* One piece, or a run of unknown characters. */
static void put_piece(struct encoder *c, const char *s, size_t len)
{
    const struct tokenizer *t = c->t;
    int32_t id = tokenizer_find_bytes(t, s, len);
    bool fall = id < 0 && t->byte_fallback;
    for (size_t i = 0; i < len && fall; i++) fall = t->fallback_id[(unsigned char)s[i]] >= 0;
    for (size_t i = 0; i < len && fall; i++) encoder_put(c, t->fallback_id[(unsigned char)s[i]]);
    if (!fall) encoder_put(c, id >= 0 ? id : t->unk);
}

static int unigram(struct encoder *c, const char *s, size_t len)
{
    if (find_paths(c, s, len)) return -1;
    size_t next = len; /* turns the links around: best[from].from becomes where the piece ends */
    for (size_t i = len; i > 0;) {
        size_t from = c->best[i].from;
        bool unknown = c->best[i].id == c->t->unk;
        while (unknown && from && c->best[from].id == c->t->unk) from = c->best[from].from;
        c->best[i].from = (uint32_t)next;
        next = i;
        i = from;
    }
    for (size_t i = 0; i < len; i = next, next = c->best[next].from) put_piece(c, s + i, next - i);
    return 0;
}

/* The longest piece first; inside of a word they begin with a prefix. */
static void wordpiece(struct encoder *c, const char *s, size_t len)
{
    const struct tokenizer *t = c->t;
    size_t chars = 0, start = c->n;
    for (size_t i = 0; i < len; i++) chars += ((unsigned char)s[i] & 0xC0) != 0x80;
    bool bad = chars > t->max_chars;
    for (size_t i = 0, end; i < len && !bad; i = end) {
        const struct trie_edge *edge = NULL;
        uint32_t node = 0;
        int32_t id = -1;
        for (const char *p = i && t->subword ? t->subword : ""; *p && !bad; p++) {
            edge = trie_step(&t->trie, node, (unsigned char)*p);
            bad = !edge;
            if (edge) node = edge->child;
        }
        end = i;
        for (size_t p = i; !bad && p < len && (edge = trie_step(&t->trie, node, (unsigned char)s[p]));
             p++, node = edge->child)
            if (edge->value >= 0) id = edge->value, end = p + 1;
        if (id >= 0) encoder_put(c, id);
        bad |= id < 0;
    }
    if (!bad) return;
    c->n = start;
    encoder_put(c, t->unk);
}

int encode_pieces(struct encoder *c, const char *s, size_t len)
{
    const struct tokenizer *t = c->t;
    if (t->model == MODEL_UNIGRAM) return unigram(c, s, len);
    if (t->model == MODEL_WORDPIECE) {
        wordpiece(c, s, len);
        return 0;
    }
    int32_t id = tokenizer_find_bytes(t, s, len);
    encoder_put(c, id >= 0 ? id : t->unk);
    return 0;
}
