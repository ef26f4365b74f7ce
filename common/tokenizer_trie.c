/* SPDX-License-Identifier: Apache-2.0
 * The hash table under struct trie: kept at most half full. */
#include "common/tokenizer_trie.h"
#include "common/mem.h"

static struct trie_edge *slot(struct trie_edge *edges, size_t mask, uint64_t key)
{
    size_t i = trie_hash(key) & mask;
    while (edges[i].key != UINT64_MAX && edges[i].key != key) i = (i + 1) & mask;
    return &edges[i];
}

static void grow(struct trie *t)
{
    size_t size = t->edges ? 2 * (t->mask + 1) : 64;
    struct trie_edge *edges = MEM_NEW(struct trie_edge, size);
    for (size_t i = 0; i < size; i++) edges[i].key = UINT64_MAX;
    for (size_t i = 0; t->edges && i <= t->mask; i++)
        if (t->edges[i].key != UINT64_MAX) *slot(edges, size - 1, t->edges[i].key) = t->edges[i];
    mem_free(t->edges);
    t->edges = edges;
    t->mask = size - 1;
}

void trie_add(struct trie *t, const char *s, size_t n, int32_t value)
{
    uint32_t node = 0;
    struct trie_edge *e = NULL;
    for (size_t i = 0; i < n; i++) {
        if (!t->edges || 2 * (t->nodes + (size_t)1) > t->mask) grow(t);
        uint64_t key = (uint64_t)node << 8 | (unsigned char)s[i];
        e = slot(t->edges, t->mask, key);
        if (e->key == UINT64_MAX) *e = (struct trie_edge){key, ++t->nodes, -1};
        node = e->child;
    }
    if (!e) return;
    e->value = value;
    t->first[(unsigned char)s[0]] = true;
}

void trie_clear(struct trie *t)
{
    mem_free(t->edges);
    *t = (struct trie){0};
}
