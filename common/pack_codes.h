/* SPDX-License-Identifier: Apache-2.0
 * Directories in which a quantized linear is several tensors (GPTQ, AWQ, compressed-tensors, MLX). A format
 * says which tensors, how they are filled and what config.json says; the rest is one writer: planning,
 * settings that differ between linears, safetensors files, and reading everything back. */
#ifndef NT_PACK_CODES_H
#define NT_PACK_CODES_H
#include "common/pack.h"

enum { CODES_PARTS = 5 };

struct codes_part {
    const char *suffix; /* ".qweight" */
    enum dtype dtype;
    int rank;
    uint64_t shape[2];
};

/* How linears are quantized in the file; group: columns that share a scale there, 0 = the whole row. */
struct codes_setting {
    int bits, group;
    bool sym, order; /* zeros all 2^(bits-1); columns have their groups by gidx */
    size_t uses;
};

struct codes_linear {
    const struct pack_whole *w;
    size_t setting;
};

struct codes_format;
struct codes_entry;

struct codes_job {
    struct pack *p;
    const struct codes_format *f;
    struct codes_setting *settings; /* in order of appearance */
    struct codes_linear *linears;
    struct pack_whole *wholes;
    size_t n_settings, settings_cap, n_linears, n_list, n_wholes;
    struct safetensors_entry *list;
    struct codes_entry *entries;
    json_t *floats;   /* names of linears that stay float, without .weight */
    uint64_t wrapped; /* the format's */
};

struct codes_format {
    bool norms_too;  /* norms have the element type of other floats by default, not F32 */
    bool embeddings; /* tables and heads may be quantized, too */
    bool mixed;      /* settings may differ between linears */
    /* Why q cannot be stored so ("has ..."), or NULL; *group: of the file's setting; *anew: options of nt-quant that would
     * give codes which can. */
    const char *(*refusal)(const struct pack *p, const struct qtensor *q, int *group, const char **anew);
    int (*list)(const struct pack *p, const struct qtensor *q, int group,
                struct codes_part part[CODES_PARTS]);
    /* Part i, its data all zeros. */
    void (*fill)(struct codes_job *j, const struct qtensor *q, int group, const struct codes_part *part,
                 int i, void *data);
    /* The values again from data[i] of part[i], written apart from fill. */
    void (*decode)(const struct codes_setting *s, const struct codes_part *part, const void *const *data,
                   int out, int in, float *w);
    /* New reference: what config.json gains. */
    json_t *(*configure)(const struct codes_job *j);
    int (*files)(struct codes_job *j, const char *dir, struct err *e); /* further files; may be NULL */
};

/* The `write` of packers that have `codes`. Float tensors are F16 by default. */
int codes_write(struct pack *p, struct err *e) NT_MUST_CHECK;

/* ---- for formats ---- */
/* Groups of `group` columns in a row (0: one). */
int codes_groups(int in, int group);
/* Scale, zero and minimum of row o and group k of the file lie at this index of q's arrays. */
size_t codes_param(const struct qtensor *q, int group, int o, int k);
int codes_zero(const struct qtensor *q, size_t param);
/* All codes as streams of bits along the columns; of one row, words lie `step` apart, rows begin `row` apart. */
void codes_fill(const struct qtensor *q, uint32_t *words, size_t row, size_t step);
/* All scales in the part's type and shape: [out, groups], or [groups, out] where `across`. */
void codes_fill_scales(const struct qtensor *q, int group, const struct codes_part *part, bool across, void *data);
/* The largest group not above `most` (0: any) that divides both the tensor's groups and its rows, so that
 * scales need only be repeated; it is a multiple of 32. 0: whole rows, where `rows`; -1: there is none. */
int codes_group(const struct qtensor *q, int most, bool rows);
/* Name of a linear without ".weight". */
void codes_module(const struct pack_whole *w, char out[256]);
/* The setting that most linears have. */
size_t codes_most(const struct codes_job *j);
/* Does dtype t hold every scale exactly? */
bool codes_scales_exact(const struct qtensor *q, enum dtype t);
/* Reasons of several formats, or NULL. q is not codes with integer zeros; */
const char *codes_no_integers(const struct qtensor *q, const char **anew);
/* its columns have their groups by activation order, and the format no index of them; */
const char *codes_no_index(const struct qtensor *q, const char **anew);
/* no group that codes_group finds; */
const char *codes_no_group(int group, const char **anew);
/* F16 does not hold all scales; */
const char *codes_no_f16(const struct qtensor *q, const char **anew);
/* the model's linears cannot be codes where loaders know torch.nn.Linear alone. */
const char *codes_no_linear(const struct pack *p);
#endif
