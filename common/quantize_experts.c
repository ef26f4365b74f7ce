/* SPDX-License-Identifier: Apache-2.0
 * Experts to which the calibration text sent no token, or too few: what takes the place of their statistics, or a
 * refusal. */
#include <stdio.h>
#include <string.h>
#include "common/mem.h"
#include "common/quantize.h"
#include "common/tool.h"

/* A method reads the statistics of this expert. */
static bool is_needed(const struct quantize *z, int layer, int expert)
{
    for (int r = ROLE_GATE; r <= ROLE_DOWN; r++) {
        int linear = expert_linear(expert, r);
        char name[256];
        if (!model_has_linear(z->m, layer, linear)) continue;
        model_tensor_name(z->m, layer, linear, name);
        const struct plan_rule *rule = plan_find(z->plan, name);
        if (rule->method && rule->method->needs[0]) return true;
    }
    return false;
}

static void clear_square(struct site_stats *t, int site, int dim)
{
    size_t d = (size_t)dim;
    mem_free(t->hessian);
    t->site = site, t->dim = dim;
    t->hessian = MEM_NEW(float, d *d);
}

static int borrow(const struct quantize *z, int layer, struct site_stats *st, enum site s, const bool *dead,
                  struct err *e)
{
    const struct block_shape *b = &z->m->c.block;
    size_t d = (size_t)site_dim(b, expert_site(0, s));
    float *sum = MEM_NEW(float, d *d);
    uint64_t count = 0;
    for (int x = 0; x < b->experts; x++) {
        const struct site_stats *t = &st[expert_site(x, s)];
        if (!t->hessian || (size_t)t->dim != d) continue;
        for (size_t i = 0; i < d * d; i++) sum[i] += t->hessian[i];
        count += t->count;
    }
    for (int x = 0; x < b->experts && count; x++) {
        struct site_stats *t = &st[expert_site(x, s)];
        if (!dead[x]) continue;
        clear_square(t, expert_site(x, s), (int)d);
        memcpy(t->hessian, sum, d * d * sizeof(float));
    }
    mem_free(sum);
    return count ? 0 : err_set(e, NT_EXIT_DATA, "layer %d: no expert got a token, there is nothing to borrow", layer);
}

static void plain(const struct quantize *z, struct site_stats *st, enum site s, const bool *dead)
{
    const struct block_shape *b = &z->m->c.block;
    for (int x = 0; x < b->experts; x++) {
        struct site_stats *t = &st[expert_site(x, s)];
        if (!dead[x]) continue;
        clear_square(t, expert_site(x, s), site_dim(b, expert_site(x, s)));
        for (size_t i = 0; i < (size_t)t->dim; i++) t->hessian[i * (size_t)t->dim + i] = 1;
    }
}

/* Which are dead; the first of them or -1. */
static int find_dead(const struct quantize *z, int layer, const struct site_stats *st, bool *dead)
{
    int first = -1;
    for (int x = 0; x < z->m->c.block.experts; x++) {
        dead[x] = st[expert_site(x, SITE_MLP)].count < z->dead_below && is_needed(z, layer, x);
        if (dead[x] && first < 0) first = x;
    }
    return first;
}

/* Tokens per expert, and who has too few for a Hessian of full rank. */
static void tell_experts(const struct quantize *z, int layer, const struct site_stats *st, const bool *dead)
{
    const struct block_shape *b = &z->m->c.block;
    uint64_t least = UINT64_MAX, most = 0;
    int few = 0, n_dead = 0, wide = b->expert_F > b->D ? b->expert_F : b->D;
    char list[96] = "";
    for (int x = 0; x < b->experts; x++) {
        uint64_t n = st[expert_site(x, SITE_MLP)].count;
        size_t len = strlen(list);
        least = n < least ? n : least, most = n > most ? n : most;
        few += n < (uint64_t)wide && !dead[x];
        n_dead += dead[x];
        if (dead[x] && len + 16 < sizeof list) snprintf(list + len, sizeof list - len, "%s%d", len ? ", " : "", x);
    }
    note("layer %d: %llu to %llu tokens per expert", layer, (unsigned long long)least, (unsigned long long)most);
    if (n_dead)
        warn("layer %d: %d of %d experts are dead and %s: %s%s", layer, n_dead, b->experts,
             z->dead == DEAD_RTN ? "rounded to nearest" : "quantized for the inputs of all", list,
             strlen(list) + 16 < sizeof list ? "" : " ...");
    if (few)
        warn("layer %d: %d experts have statistics of fewer tokens than their %d inputs: their Hessians are singular, "
             "collect more",
             layer, few, wide);
}

int quantize_experts(struct quantize *z, int layer, struct site_stats *st, struct err *e)
{
    const struct block_shape *b = &z->m->c.block;
    if (!b->experts || z->m->c.layer[layer].dense) return 0;
    bool *dead = MEM_NEW(bool, b->experts);
    int first = find_dead(z, layer, st, dead), rc = 0;
    if (first >= 0 && z->dead == DEAD_ERROR) {
        rc = err_set(e, NT_EXIT_DATA,
                     "layer %d: %llu tokens were routed to expert %d, at least %llu are needed: collect more or other "
                     "text, or choose --dead rtn or borrow",
                     layer, (unsigned long long)st[expert_site(first, SITE_MLP)].count, first,
                     (unsigned long long)z->dead_below);
    } else {
        tell_experts(z, layer, st, dead);
        for (int s = SITE_MLP; s <= SITE_DOWN && first >= 0 && !rc; s++) {
            if (z->dead == DEAD_RTN)
                plain(z, st, s, dead);
            else
                rc = borrow(z, layer, st, s, dead, e);
        }
    }
    mem_free(dead);
    return rc;
}
