/* SPDX-License-Identifier: Apache-2.0
 * Any record as text, for people and for diff: one line of description, the meta map, the numbers row by row.
 */
#include "common/mem.h"
#include "common/stream_priv.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void print_value(FILE *f, enum dtype t, const uint8_t *p)
{
    union {
        int64_t i64;
        int32_t i32;
        int16_t i16;
        uint64_t u64;
        uint32_t u32;
        uint16_t u16;
        double f64;
        float f32;
    } v;
    memcpy(&v, p, (size_t)dtype_block_bytes(t));
    switch (t) {
    case DT_F64:
        fprintf(f, "%.17g", v.f64);
        break;
    case DT_I64:
        fprintf(f, "%" PRId64, v.i64);
        break;
    case DT_I32:
        fprintf(f, "%" PRId32, v.i32);
        break;
    case DT_I16:
        fprintf(f, "%d", v.i16);
        break;
    case DT_I8:
        fprintf(f, "%d", (int8_t)*p);
        break;
    case DT_U64:
        fprintf(f, "%" PRIu64, v.u64);
        break;
    case DT_U32:
        fprintf(f, "%" PRIu32, v.u32);
        break;
    case DT_U16:
        fprintf(f, "%d", v.u16);
        break;
    case DT_U8:
    case DT_BOOL:
        fprintf(f, "%d", *p);
        break;
    default:
        dtype_to_f32(&v.f32, t, p, 1);
        fprintf(f, "%.9g", v.f32);
    }
}

static void print_block(FILE *f, enum dtype t, const uint8_t *p)
{
    float v[256];
    if (dtype_block(t) == 1) {
        print_value(f, t, p);
        return;
    }
    dtype_to_f32(v, t, p, (size_t)dtype_block(t));
    for (int i = 0; i < dtype_block(t); i++) fprintf(f, i ? " %.9g" : "%.9g", v[i]);
}

static int print_values(FILE *f, struct stream_reader *r, const struct record *rec, struct err *e)
{
    uint64_t size = (uint64_t)dtype_block_bytes(rec->t.dtype), block = (uint64_t)dtype_block(rec->t.dtype);
    uint64_t row = rec->t.rank ? rec->t.shape[rec->t.rank - 1] / block : 1, i = 0;
    uint8_t piece[4096 + 256];
    size_t have = 0;
    int64_t k;
    while ((k = stream_payload_some(r, piece + have, 4096, e)) > 0) {
        size_t at = 0;
        have += (size_t)k;
        for (; have - at >= size; at += size, i++) {
            print_block(f, rec->t.dtype, piece + at);
            putc((i + 1) % row ? ' ' : '\n', f);
        }
        memmove(piece, piece + at, have -= at);
    }
    return (int)k;
}

int stream_print(FILE *f, struct stream_reader *r, struct record *rec, bool values, struct err *e)
{
    fprintf(f, "%" PRId64 "\t%" PRIu64 "\t%s\t%s\t", rec->layer, rec->seq, rec->kind,
            rec->name[0] ? rec->name : "-");
    if (rec->has_payload) {
        fprintf(f, "%s\t[", dtype_name(rec->t.dtype));
        for (int i = 0; i < rec->t.rank; i++) fprintf(f, i ? ",%" PRIu64 : "%" PRIu64, rec->t.shape[i]);
        fprintf(f, "]\t%" PRIu64 "\n", rec->t.nbytes);
    } else {
        fputs("-\t-\t0\n", f);
    }
    if (!values) return 0;
    char *meta = json_dumps(rec->meta, JSON_COMPACT | JSON_ENSURE_ASCII);
    fprintf(f, "meta %s\n", meta ? meta : "{}");
    free(meta);
    return rec->has_payload ? print_values(f, r, rec, e) : 0;
}
