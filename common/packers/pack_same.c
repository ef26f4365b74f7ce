/* SPDX-License-Identifier: Apache-2.0
 * The checkpoint that nt-quant -q import read, again and whole, from its stream alone: the files of its rest with
 * the codes put back in their places, and in a copy of them the stream's norms. Codes and scales must be those
 * that came: pack_norms_into compares. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "common/import_rest.h"
#include "common/mem.h"
#include "common/pack.h"

/* Floats, which a stream has in whatever type holds them, in the file's type. */
static int put_floats(const struct weight_part *p, const struct qtensor *q, const struct tensor *t, uint8_t *bytes,
                      const char *name, struct err *e)
{
    size_t size = (size_t)dtype_block_bytes(t->dtype), in = (size_t)q->in;
    float *w = mem_array((size_t)q->out * in, sizeof *w);
    int rc = 0;
    qtensor_dequant(q, w);
    for (size_t o = 0; o < (size_t)q->out && !rc; o++) {
        size_t row = (size_t)model_part_row(p, o);
        if (!p->transposed) rc = pack_round(bytes + row * in * size, t->dtype, w + o * in, in, name, e);
        for (size_t i = 0; i < in && p->transposed && !rc; i++)
            rc = pack_round(bytes + (i * (size_t)t->shape[1] + row) * size, t->dtype, w + o * in + i, 1, name, e);
    }
    mem_free(w);
    return rc;
}

/* The rows of one linear in the bytes of the tensor that they are part of. */
static int put_rows(const struct pack *p, const struct pack_item *it, const struct qtensor *q, const struct tensor *t,
                    uint8_t *bytes, struct err *e)
{
    const struct weight_part *part = &it->part;
    bool codes = part->t->packed, blocks = dtype_block(t->dtype) > 1;
    if (codes ? q->form == QF_PLAIN : blocks && (q->form != QF_PLAIN || q->plain.dtype != t->dtype))
        return err_set(e, NT_EXIT_DATA, "%s: tensor %s is stored in another way than in the checkpoint it came from",
                       p->stream, it->name);
    if (!codes && !blocks) return put_floats(part, q, t, bytes, it->name, e);
    size_t row = codes ? 0 : (size_t)(q->plain.nbytes / (uint64_t)q->out);
    for (size_t o = 0; o < (size_t)q->out; o++)
        if (codes)
            checkpoint_put_codes(part->t, model_part_row(part, o), q->codes + o * (size_t)q->in, bytes);
        else
            memcpy(bytes + model_part_row(part, o) * row, (const uint8_t *)q->plain.data + o * row, row);
    return 0;
}

static int write_at(const char *path, const uint8_t *bytes, uint64_t n, uint64_t at, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC), rc = fd < 0 ? -1 : file_write_at(fd, bytes, (size_t)n, at);
    if (rc) err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno));
    if (fd >= 0 && close(fd) && !rc) rc = err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno));
    return rc;
}

/* What the file says now, of which all but the codes is as it came, must be the stream's value. */
static int compare(const struct pack *p, const struct pack_item *it, const struct qtensor *q, struct err *e)
{
    size_t n = (size_t)q->out * (size_t)q->in;
    float *ours = mem_array(n, sizeof *ours), *theirs = mem_array(n, sizeof *theirs);
    int rc = model_read_part(p->m, &it->part, theirs, e);
    qtensor_dequant(q, ours);
    if (!rc && memcmp(ours, theirs, n * sizeof *ours))
        rc = err_set(e, NT_EXIT_DATA,
                     "%s: tensor %s has other codes or scales than the checkpoint it came from: --format same takes new norms "
                     "alone",
                     p->stream, it->name);
    mem_free(ours);
    mem_free(theirs);
    return rc;
}

/* Other parts of the same tensor are there already, or still zeros. */
static int fill(struct pack *p, const struct pack_item *it, struct err *e)
{
    const struct checkpoint *c = p->m->ck;
    const struct checkpoint_tensor *t = checkpoint_codes_part(it->part.t);
    struct qtensor q;
    if (err_stopped(e) || pack_load(p, it->q, &q, e)) return -1;
    uint8_t *bytes = mem_array(t->t.nbytes, 1);
    memcpy(bytes, t->t.data, t->t.nbytes);
    int rc = put_rows(p, it, &q, &t->t, bytes, e);
    if (!rc) rc = write_at(c->files[t->file], bytes, t->t.nbytes, t->offset, e);
    if (!rc) rc = compare(p, it, &q, e);
    mem_free(bytes);
    qtensor_clear(&q);
    checkpoint_release(c, t);
    return rc;
}

static int write_same(struct pack *p, struct err *e)
{
    struct norms_result r;
    if (!p->rest)
        return err_set(e, NT_EXIT_USAGE,
                       "--format same takes no -m, but a stream that nt-quant -q import wrote (--norms-into CKPT does "
                       "the same with the checkpoint at hand)");
    for (size_t i = 0; i < p->n_items; i++)
        if (p->items[i].q >= 0 && fill(p, &p->items[i], e)) return -1;
    return pack_norms_into(p, import_rest_path(p->rest), p->out, &r, e);
}

const struct packer pack_same = {
    .name = "same",
    .summary = "the imported checkpoint in its own format, codes as they came",
    .directory = true,
    .size = PACK_CODES,
    .write = write_same,
};
