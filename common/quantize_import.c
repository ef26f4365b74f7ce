/* SPDX-License-Identifier: Apache-2.0
 * Somebody else's codes as tensors of a stream: nothing is computed, only rows are put in order. */
#include <string.h>
#include "common/mem.h"
#include "common/quantize.h"

/* GGUF blocks, or floats: the bytes of the file, row by row. */
static void copy_rows(const struct weight_part *p, struct qtensor *q)
{
    const struct tensor *t = &p->t->t;
    size_t bytes = t->nbytes / (size_t)(tensor_count(t) / p->cols);
    q->form = QF_PLAIN;
    q->plain = (struct tensor){
        .dtype = t->dtype, .rank = 2, .shape = {p->rows, p->cols}, .nbytes = p->rows * bytes};
    q->plain.data = mem_array((size_t)p->rows, bytes);
    for (size_t i = 0; i < (size_t)p->rows; i++)
        memcpy((char *)q->plain.data + i * bytes, (const char *)t->data + model_part_row(p, i) * bytes, bytes);
}

/* Rows of an array to its front, in the part's order; none of them lies before its new place. */
static void take(void *array, const struct weight_part *p, size_t bytes)
{
    for (size_t i = 0; array && i < (size_t)p->rows; i++)
        memmove((char *)array + i * bytes, (char *)array + model_part_row(p, i) * bytes, bytes);
}

/* Some rows of a packed weight: those of a fused one that are this part. */
static int code_rows(const struct model *m, const struct weight_part *p, struct qtensor *q, struct err *e)
{
    bool together = p->run == p->rows;
    int all = (int)p->t->t.shape[0];
    if (checkpoint_codes(m->ck, p->t, together ? (int)p->row0 : 0, together ? (int)p->rows : all, q, e)) return -1;
    if (together) return 0;
    take(q->codes, p, (size_t)q->in);
    take(q->ridx, p, sizeof *q->ridx);
    take(q->n_rows ? NULL : q->scale, p, (size_t)q->n_groups * sizeof *q->scale);
    take(q->n_rows ? NULL : q->zero, p, (size_t)q->n_groups);
    take(q->n_rows ? NULL : q->minimum, p, (size_t)q->n_groups * sizeof *q->minimum);
    q->out = (int)p->rows;
    return 0;
}

int quantize_import(struct model *m, int layer, int linear, struct qtensor *q, struct err *e)
{
    const struct weight_part *p = &m->layers[layer].w[linear];
    int rc = 0;
    role_dims(&m->c.block, linear, &q->out, &q->in);
    if (p->t->packed) {
        rc = code_rows(m, p, q, e);
    } else if (p->transposed) { /* floats: GPT-2's own files */
        float *w = MEM_NEW(float, (size_t)q->out *(size_t)q->in);
        rc = model_read_part(m, p, w, e);
        if (!rc) qtensor_init_plain(q, q->out, q->in, w);
        mem_free(w);
    } else {
        copy_rows(p, q);
    }
    checkpoint_release(m->ck, p->t);
    return rc;
}
