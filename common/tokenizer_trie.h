/* SPDX-License-Identifier: Apache-2.0
 * A set of byte strings with a number each, walked byte by byte: which of them begin here? Edges lie in one
 * hash table. Zeroed is empty. */
#ifndef NT_TOKENIZER_TRIE_H
#define NT_TOKENIZER_TRIE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct trie_edge {
    uint64_t key;   /* node << 8 | byte; all ones = free */
    uint32_t child; /* node */
    int32_t value;  /* of the string that ends here, -1 none */
};
struct trie {
    struct trie_edge *edges;
    size_t mask;    /* table size - 1 */
    uint32_t nodes; /* besides the root, node 0 */
    bool first[256];
};
/* value >= 0; of equal strings the last one counts. Empty strings are left out. */
void trie_add(struct trie *t, const char *s, size_t n, int32_t value);
void trie_clear(struct trie *t);

static inline size_t trie_hash(uint64_t key)
{
    return (size_t)((key * 0x9E3779B97F4A7C15u) >> 24);
}

/* The edge from node for a byte, or NULL. */
static inline const struct trie_edge *trie_step(const struct trie *t, uint32_t node, unsigned char byte)
{
    uint64_t key = (uint64_t)node << 8 | byte;
    if (!t->edges) return NULL;
    for (size_t i = trie_hash(key) & t->mask;; i = (i + 1) & t->mask) {
        if (t->edges[i].key == key) return &t->edges[i];
        if (t->edges[i].key == UINT64_MAX) return NULL;
    }
}
#endif
