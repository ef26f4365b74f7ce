/* SPDX-License-Identifier: Apache-2.0
 * The stack machine behind pickle.h. Memory follows the length of the pickle: every opcode makes at most one
 * value, nothing is copied, nothing is called. */
#include "common/pickle.h"
#include "common/checkpoint_impl.h"
#include "common/mem.h"
#include <string.h>

#define VALUES_MAX (1u << 22)
#define CHUNK 4096

enum global {
    G_ORDERED_DICT,
    G_TENSOR_V1,
    G_TENSOR_V2,
    G_TENSOR_V3,
    G_PARAMETER,
    G_PARAMETER_STATE,
    G_SIZE,
    G_STORAGE, /* + dtype, DT_NONE: untyped */
    G_DTYPE = G_STORAGE + DT_COUNT,
    G_COUNT = G_DTYPE + DT_COUNT
};

static const struct {
    const char *module, *name;
    int id;
} globals[] = {
    {"collections", "OrderedDict", G_ORDERED_DICT},
    {"torch._utils", "_rebuild_tensor", G_TENSOR_V1},
    {"torch._utils", "_rebuild_tensor_v2", G_TENSOR_V2},
    {"torch._utils", "_rebuild_tensor_v3", G_TENSOR_V3},
    {"torch._utils", "_rebuild_parameter", G_PARAMETER},
    {"torch._utils", "_rebuild_parameter_with_state", G_PARAMETER_STATE},
    {"torch", "Size", G_SIZE},
    {"torch", "DoubleStorage", G_STORAGE + DT_F64},
    {"torch", "FloatStorage", G_STORAGE + DT_F32},
    {"torch", "HalfStorage", G_STORAGE + DT_F16},
    {"torch", "BFloat16Storage", G_STORAGE + DT_BF16},
    {"torch", "LongStorage", G_STORAGE + DT_I64},
    {"torch", "IntStorage", G_STORAGE + DT_I32},
    {"torch", "ShortStorage", G_STORAGE + DT_I16},
    {"torch", "CharStorage", G_STORAGE + DT_I8},
    {"torch", "ByteStorage", G_STORAGE + DT_U8},
    {"torch", "BoolStorage", G_STORAGE + DT_BOOL},
    {"torch.storage", "UntypedStorage", G_STORAGE + DT_NONE},
    {"torch", "UntypedStorage", G_STORAGE + DT_NONE},
    {"torch", "float64", G_DTYPE + DT_F64},
    {"torch", "float32", G_DTYPE + DT_F32},
    {"torch", "float16", G_DTYPE + DT_F16},
    {"torch", "bfloat16", G_DTYPE + DT_BF16},
    {"torch", "int64", G_DTYPE + DT_I64},
    {"torch", "int32", G_DTYPE + DT_I32},
    {"torch", "int16", G_DTYPE + DT_I16},
    {"torch", "int8", G_DTYPE + DT_I8},
    {"torch", "uint8", G_DTYPE + DT_U8},
    {"torch", "uint16", G_DTYPE + DT_U16},
    {"torch", "uint32", G_DTYPE + DT_U32},
    {"torch", "uint64", G_DTYPE + DT_U64},
    {"torch", "bool", G_DTYPE + DT_BOOL},
    {"torch", "float8_e4m3fn", G_DTYPE + DT_F8_E4M3},
    {"torch", "float8_e5m2", G_DTYPE + DT_F8_E5M2},
    {"torch", "float8_e8m0fnu", G_DTYPE + DT_F8_E8M0},
};

struct list {
    struct pickle_value **at;
    size_t n, cap;
};

struct pickle {
    struct pickle_value **chunk;
    size_t n_chunks, chunks_cap, n_values;
    struct pickle_value *top;
    /* while it runs */
    const char *file;
    const uint8_t *at, *p, *end;
    struct list stack, memo;
    size_t *mark, n_marks, marks_cap;
    struct err *e;
};

static int bad(struct pickle *k, const char *why)
{
    return err_set(k->e, NT_EXIT_DATA, "%s: pickle: byte %zu: %s", k->file, (size_t)(k->p - k->at), why);
}

/* ---- values ---- */

static struct pickle_value *new_value(struct pickle *k, enum pickle_kind kind)
{
    if (k->n_values >= VALUES_MAX) return bad(k, "too many objects"), NULL;
    if (k->n_values % CHUNK == 0) {
        k->chunk = mem_grow(k->chunk, &k->chunks_cap, k->n_chunks + 1, sizeof *k->chunk);
        k->chunk[k->n_chunks++] = MEM_NEW(struct pickle_value, CHUNK);
    }
    struct pickle_value *v = &k->chunk[k->n_values / CHUNK][k->n_values % CHUNK];
    k->n_values++;
    v->kind = kind;
    return v;
}

static void list_add(struct list *l, struct pickle_value *v)
{
    l->at = mem_grow(l->at, &l->cap, l->n + 1, sizeof *l->at);
    l->at[l->n++] = v;
}

static int push(struct pickle *k, struct pickle_value *v)
{
    if (!v) return -1;
    list_add(&k->stack, v);
    return 0;
}

static int push_int(struct pickle *k, enum pickle_kind kind, int64_t i)
{
    struct pickle_value *v = new_value(k, kind);
    if (v) v->i = i;
    return push(k, v);
}

/* The n topmost values, which must lie above the last mark. */
static struct pickle_value **pop(struct pickle *k, size_t n)
{
    size_t floor = k->n_marks ? k->mark[k->n_marks - 1] : 0;
    if (k->stack.n - floor < n) return bad(k, "the stack is empty"), NULL;
    k->stack.n -= n;
    return k->stack.at + k->stack.n;
}

/* Values above the last mark, and the mark, are taken off. */
static struct pickle_value **pop_mark(struct pickle *k, size_t *n)
{
    if (!k->n_marks) return bad(k, "no mark"), NULL;
    size_t floor = k->mark[--k->n_marks];
    *n = k->stack.n - floor;
    k->stack.n = floor;
    return k->stack.at + floor;
}

static void append(struct pickle_value *to, struct pickle_value *const *v, size_t n)
{
    size_t cap = to->cap;
    if (!n) return;
    to->item = mem_grow(to->item, &cap, to->n + n, sizeof *to->item);
    memcpy(to->item + to->n, v, n * sizeof *v);
    to->n += (uint32_t)n, to->cap = (uint32_t)cap;
}

static int make_tuple(struct pickle *k, struct pickle_value *const *v, size_t n)
{
    struct pickle_value *t = v ? new_value(k, PICKLE_TUPLE) : NULL;
    if (!t) return -1;
    append(t, v, n);
    return push(k, t);
}

static struct pickle_value *top_of(struct pickle *k, enum pickle_kind kind, const char *what)
{
    struct pickle_value **v = pop(k, 1);
    if (!v) return NULL;
    k->stack.n++;
    if ((*v)->kind != kind) return bad(k, what), NULL;
    return *v;
}

/* ---- what the allowed globals make of their arguments ---- */

static int64_t int_at(const struct pickle_value *t, uint32_t i)
{
    return i < t->n && t->item[i]->kind == PICKLE_INT ? t->item[i]->i : -1;
}

static int read_sizes(struct pickle *k, const struct pickle_value *t, uint64_t out[TENSOR_MAX_RANK])
{
    if (t->kind != PICKLE_TUPLE) return bad(k, "a tensor whose shape or strides are no tuple");
    if (t->n > TENSOR_MAX_RANK) return bad(k, "a tensor of more than 8 dimensions");
    for (uint32_t i = 0; i < t->n; i++) {
        if (int_at(t, i) < 0) return bad(k, "a tensor with a bad dimension or stride");
        out[i] = (uint64_t)int_at(t, i);
    }
    return 0;
}

/* _rebuild_tensor(storage, offset, shape, stride); v2 adds (requires_grad, hooks, metadata), v3 a dtype after
 * the hooks. */
static int make_tensor(struct pickle *k, const struct pickle_value *a, enum global how)
{
    if (a->n < (how == G_TENSOR_V1   ? 4u
                : how == G_TENSOR_V2 ? 6u
                                     : 7u) ||
        a->item[0]->kind != PICKLE_STORAGE || int_at(a, 1) < 0)
        return bad(k, "a tensor that is made from something else than a storage");
    struct pickle_value *v = new_value(k, PICKLE_TENSOR);
    if (!v) return -1;
    struct pickle_tensor *t = v->tensor = MEM_NEW(struct pickle_tensor, 1);
    t->storage = *a->item[0]->storage;
    t->dtype = t->storage.dtype;
    t->offset = (uint64_t)int_at(a, 1);
    if (how == G_TENSOR_V3) {
        if (a->item[6]->kind != PICKLE_GLOBAL || a->item[6]->i < G_DTYPE)
            return bad(k, "a tensor without an element type");
        t->dtype = (enum dtype)(a->item[6]->i - G_DTYPE);
    }
    if (t->dtype == DT_NONE) return bad(k, "a tensor without an element type");
    if (read_sizes(k, a->item[2], t->shape) < 0 || read_sizes(k, a->item[3], t->stride) < 0) return -1;
    if (a->item[2]->n != a->item[3]->n) return bad(k, "a tensor with other strides than dimensions");
    t->rank = (int)a->item[2]->n;
    return push(k, v);
}

/* OrderedDict() or OrderedDict([[key, value], ...]) */
static int make_dict(struct pickle *k, const struct pickle_value *a)
{
    struct pickle_value *d = new_value(k, PICKLE_DICT);
    if (!d) return -1;
    if (a->n > 1 || (a->n && a->item[0]->kind != PICKLE_LIST))
        return bad(k, "an OrderedDict of something else than pairs");
    for (uint32_t i = 0; a->n && i < a->item[0]->n; i++) {
        const struct pickle_value *pair = a->item[0]->item[i];
        if ((pair->kind != PICKLE_TUPLE && pair->kind != PICKLE_LIST) || pair->n != 2)
            return bad(k, "an OrderedDict of something else than pairs");
        append(d, pair->item, 2);
    }
    return push(k, d);
}

static int reduce(struct pickle *k)
{
    struct pickle_value **v = pop(k, 2);
    if (!v) return -1;
    if (v[0]->kind != PICKLE_GLOBAL || v[1]->kind != PICKLE_TUPLE)
        return bad(k, "a call of something that is no function of state dicts");
    switch (v[0]->i) {
    case G_ORDERED_DICT:
        return make_dict(k, v[1]);
    case G_TENSOR_V1:
    case G_TENSOR_V2:
    case G_TENSOR_V3:
        return make_tensor(k, v[1], (enum global)v[0]->i);
    case G_PARAMETER:
    case G_PARAMETER_STATE:
        if (!v[1]->n || v[1]->item[0]->kind != PICKLE_TENSOR) return bad(k, "a parameter that is no tensor");
        return push(k, v[1]->item[0]);
    case G_SIZE:
        if (v[1]->n != 1 || v[1]->item[0]->kind != PICKLE_TUPLE) return bad(k, "a torch.Size of no tuple");
        return push(k, v[1]->item[0]);
    default:
        return bad(k, "a call of a type");
    }
}

/* ("storage", type, key, location, count [, view]) */
static int persistent_id(struct pickle *k)
{
    struct pickle_value **v = pop(k, 1), *s;
    if (!v) return -1;
    const struct pickle_value *t = *v;
    if (t->kind != PICKLE_TUPLE || t->n < 5 || t->n > 6 || t->item[0]->kind != PICKLE_TEXT ||
        t->item[0]->n != 7 || memcmp(t->item[0]->s, "storage", 7) != 0 || t->item[1]->kind != PICKLE_GLOBAL ||
        t->item[1]->i < G_STORAGE || t->item[1]->i >= G_DTYPE || t->item[2]->kind != PICKLE_TEXT ||
        int_at(t, 4) < 0)
        return bad(k, "a persistent id that names no storage");
    if (t->n == 6 && t->item[5]->kind != PICKLE_NONE)
        return bad(k, "a storage that is a view of another one");
    if (!(s = new_value(k, PICKLE_STORAGE))) return -1;
    s->storage = MEM_NEW(struct pickle_storage, 1);
    *s->storage = (struct pickle_storage){.key = t->item[2]->s,
                                          .key_len = t->item[2]->n,
                                          .dtype = (enum dtype)(t->item[1]->i - G_STORAGE),
                                          .count = (uint64_t)int_at(t, 4)};
    return push(k, s);
}

static int push_global(struct pickle *k, const char *module, size_t m, const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (strlen(globals[i].module) == m && memcmp(globals[i].module, module, m) == 0 &&
            strlen(globals[i].name) == n && memcmp(globals[i].name, name, n) == 0)
            return push_int(k, PICKLE_GLOBAL, globals[i].id);
    return err_set(k->e, NT_EXIT_DATA,
                   "%s: pickle: asks for %s.%s, which is no part of a state dict: refused", k->file,
                   show_name(module, m), show_name(name, n));
}

/* ---- reading ---- */

static const uint8_t *take(struct pickle *k, uint64_t n)
{
    if ((uint64_t)(k->end - k->p) < n) return bad(k, "truncated"), NULL;
    const uint8_t *p = k->p;
    k->p += n;
    return p;
}

static int take_uint(struct pickle *k, int bytes, uint64_t *v)
{
    const uint8_t *p = take(k, (uint64_t)bytes);
    if (!p) return -1;
    *v = 0;
    for (int i = 0; i < bytes; i++) *v |= (uint64_t)p[i] << 8 * i;
    return 0;
}

static int push_text(struct pickle *k, int length_bytes)
{
    uint64_t n;
    if (take_uint(k, length_bytes, &n) < 0) return -1;
    if (n > UINT32_MAX) return bad(k, "a string over 4 GiB");
    const uint8_t *p = take(k, n);
    struct pickle_value *v = p ? new_value(k, PICKLE_TEXT) : NULL;
    if (!v) return -1;
    v->s = (const char *)p, v->n = (uint32_t)n;
    return push(k, v);
}

static int push_long(struct pickle *k, int length_bytes)
{
    uint64_t n, v = 0;
    if (take_uint(k, length_bytes, &n) < 0) return -1;
    const uint8_t *p = take(k, n);
    if (!p) return -1;
    if (n > 8) {
        struct pickle_value *x = n > 255 ? (bad(k, "a huge number"), NULL) : new_value(k, PICKLE_LONG);
        if (x) x->s = (const char *)p, x->n = (uint32_t)n;
        return push(k, x);
    }
    for (uint64_t i = 0; i < 8; i++) v |= (uint64_t)(i < n ? p[i] : n && p[n - 1] & 0x80 ? 0xFF : 0) << 8 * i;
    return push_int(k, PICKLE_INT, (int64_t)v);
}

static int push_real(struct pickle *k)
{
    const uint8_t *p = take(k, 8);
    struct pickle_value *v = p ? new_value(k, PICKLE_REAL) : NULL;
    uint64_t u = 0;
    if (!v) return -1;
    for (int i = 0; i < 8; i++) u = u << 8 | p[i];
    memcpy(&v->f, &u, 8);
    return push(k, v);
}

static int line_global(struct pickle *k)
{
    const uint8_t *a = memchr(k->p, '\n', (size_t)(k->end - k->p)),
                  *b = a ? memchr(a + 1, '\n', (size_t)(k->end - a - 1)) : NULL;
    const char *module = (const char *)k->p;
    if (!b) return bad(k, "truncated");
    k->p = b + 1;
    return push_global(k, module, (size_t)(a - (const uint8_t *)module), (const char *)a + 1,
                       (size_t)(b - a - 1));
}

static int stack_global(struct pickle *k)
{
    struct pickle_value **v = pop(k, 2);
    if (!v) return -1;
    if (v[0]->kind != PICKLE_TEXT || v[1]->kind != PICKLE_TEXT) return bad(k, "a global without a name");
    return push_global(k, v[0]->s, v[0]->n, v[1]->s, v[1]->n);
}

static int memo_put(struct pickle *k, uint64_t at)
{
    struct pickle_value **v = pop(k, 1);
    if (!v) return -1;
    k->stack.n++;
    if (at > k->memo.n) return bad(k, "a memo out of order");
    if (at == k->memo.n)
        list_add(&k->memo, *v);
    else
        k->memo.at[at] = *v;
    return 0;
}

static int memo_get(struct pickle *k, int bytes)
{
    uint64_t at;
    if (take_uint(k, bytes, &at) < 0) return -1;
    return at < k->memo.n ? push(k, k->memo.at[at]) : bad(k, "a memo that was never made");
}

static int put_at(struct pickle *k, int bytes)
{
    uint64_t at;
    return take_uint(k, bytes, &at) < 0 ? -1 : memo_put(k, at);
}

static int add_items(struct pickle *k, enum pickle_kind kind, bool many)
{
    size_t n = kind == PICKLE_DICT ? 2 : 1;
    struct pickle_value **v = many ? pop_mark(k, &n) : pop(k, n);
    if (!v) return -1;
    if (kind == PICKLE_DICT && n % 2) return bad(k, "a key without a value");
    struct pickle_value *to =
        top_of(k, kind, kind == PICKLE_DICT ? "items for no dictionary" : "items for no list");
    if (!to) return -1;
    append(to, v, n);
    return 0;
}

/* State of an object: OrderedDict's attributes (_metadata), which say nothing about tensors. */
static int build(struct pickle *k)
{
    if (!pop(k, 1)) return -1;
    return top_of(k, PICKLE_DICT, "attributes for something else than a dictionary") ? 0 : -1;
}

static int push_sint(struct pickle *k, int bytes)
{
    uint64_t v;
    if (take_uint(k, bytes, &v) < 0) return -1;
    return push_int(k, PICKLE_INT, bytes == 4 ? (int32_t)v : (int64_t)v);
}

static int set_mark(struct pickle *k)
{
    k->mark = mem_grow(k->mark, &k->marks_cap, k->n_marks + 1, sizeof *k->mark);
    k->mark[k->n_marks++] = k->stack.n;
    return 0;
}

static int skip(struct pickle *k, int bytes)
{
    return take(k, (uint64_t)bytes) ? 0 : -1;
}

static int step(struct pickle *k, uint8_t op)
{
    size_t n = 0;
    struct pickle_value **v;
    switch (op) {
    case 0x80:
        return skip(k, 1); /* PROTO */
    case 0x95:
        return skip(k, 8); /* FRAME */
    case '(':
        return set_mark(k);
    case '0':
        return pop(k, 1) ? 0 : -1;
    case '1':
        return pop_mark(k, &n) ? 0 : -1;
    case 'N':
        return push(k, new_value(k, PICKLE_NONE));
    case 0x88:
        return push_int(k, PICKLE_BOOL, 1);
    case 0x89:
        return push_int(k, PICKLE_BOOL, 0);
    case 'K':
        return push_sint(k, 1);
    case 'M':
        return push_sint(k, 2);
    case 'J':
        return push_sint(k, 4);
    case 0x8a:
        return push_long(k, 1);
    case 0x8b:
        return push_long(k, 4);
    case 'G':
        return push_real(k);
    case 0x8c:
    case 'U':
        return push_text(k, 1);
    case 'X':
    case 'T':
        return push_text(k, 4);
    case 0x8d:
        return push_text(k, 8);
    case ')':
        return make_tuple(k, k->stack.at + k->stack.n, 0);
    case 't':
        return v = pop_mark(k, &n), make_tuple(k, v, n);
    case 0x85:
        return make_tuple(k, pop(k, 1), 1);
    case 0x86:
        return make_tuple(k, pop(k, 2), 2);
    case 0x87:
        return make_tuple(k, pop(k, 3), 3);
    case ']':
        return push(k, new_value(k, PICKLE_LIST));
    case '}':
        return push(k, new_value(k, PICKLE_DICT));
    case 'a':
        return add_items(k, PICKLE_LIST, false);
    case 'e':
        return add_items(k, PICKLE_LIST, true);
    case 's':
        return add_items(k, PICKLE_DICT, false);
    case 'u':
        return add_items(k, PICKLE_DICT, true);
    case 'q':
        return put_at(k, 1);
    case 'r':
        return put_at(k, 4);
    case 0x94:
        return memo_put(k, k->memo.n);
    case 'h':
        return memo_get(k, 1);
    case 'j':
        return memo_get(k, 4);
    case 'c':
        return line_global(k);
    case 0x93:
        return stack_global(k);
    case 'Q':
        return persistent_id(k);
    case 'R':
        return reduce(k);
    case 'b':
        return build(k);
    }
    return err_set(k->e, NT_EXIT_DATA,
                   "%s: pickle: byte %zu: opcode 0x%02x is no part of a state dict: refused", k->file,
                   (size_t)(k->p - k->at) - 1, op);
}

struct pickle *pickle_read(const char *file, const uint8_t *p, size_t n, size_t *used, struct err *e)
{
    struct pickle *k = MEM_NEW(struct pickle, 1);
    const uint8_t *op;
    k->file = file, k->at = k->p = p, k->end = p + n, k->e = e;
    k->stack.at = mem_grow(NULL, &k->stack.cap, 64, sizeof *k->stack.at);
    int rc = 0;
    while (rc == 0 && (op = take(k, 1)) && *op != '.') rc = step(k, *op);
    struct pickle_value **v = rc == 0 && op ? pop(k, 1) : NULL;
    if (v) k->top = *v;
    mem_free(k->stack.at), mem_free(k->memo.at), mem_free(k->mark);
    k->stack.at = k->memo.at = NULL, k->mark = NULL;
    if (used) *used = (size_t)(k->p - p);
    if (v) return k;
    pickle_free(k);
    return NULL;
}

const struct pickle_value *pickle_top(const struct pickle *k)
{
    return k->top;
}

int pickle_each_storage(const struct pickle *k, pickle_visit *visit, void *ctx, struct err *e)
{
    for (size_t i = 0; i < k->n_values; i++) {
        const struct pickle_value *v = &k->chunk[i / CHUNK][i % CHUNK];
        if (v->kind == PICKLE_STORAGE && visit(ctx, v->storage, e) < 0) return -1;
    }
    return 0;
}

void pickle_free(struct pickle *k)
{
    if (!k) return;
    for (size_t i = 0; i < k->n_values; i++) {
        struct pickle_value *v = &k->chunk[i / CHUNK][i % CHUNK];
        bool owns = v->kind == PICKLE_TUPLE || v->kind == PICKLE_LIST || v->kind == PICKLE_DICT;
        if (owns) mem_free(v->item);
        if (v->kind == PICKLE_TENSOR) mem_free(v->tensor);
        if (v->kind == PICKLE_STORAGE) mem_free(v->storage);
    }
    for (size_t i = 0; i < k->n_chunks; i++) mem_free(k->chunk[i]);
    mem_free(k->chunk);
    mem_free(k);
}
