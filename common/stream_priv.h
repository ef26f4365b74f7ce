/* SPDX-License-Identifier: Apache-2.0
 * NTS/1 on the byte level: what writer, reader and salvage share. The page is man/nt-stream.5. */
#ifndef NT_STREAM_PRIV_H
#define NT_STREAM_PRIV_H
#include <msgpack.h>
#include <xxhash.h>
#include "common/stream.h"

#define NTS_MAJOR 1
#define NTS_MINOR 0
#define NTS_ALIGN 64
#define NTS_SYNC_TYPE 0x53 /* 'S' */
#define NTS_END_TYPE 0x45  /* 'E' */
#define NTS_SYNC_SIZE 18
#define NTS_HEADER_MAX (16u << 20) /* header and trailer maps */
#define NTS_RECORD_MAX (1u << 20)  /* a record's array, a tail */
#define NTS_NAME_MAX 4096
#define NTS_KIND_MAX 64
#define NTS_DEPTH_MAX 32

extern const uint8_t nts_magic[10];           /* fixext 8, type 'N', "NTSTRM", major, minor */
extern const uint8_t nts_sync[NTS_SYNC_SIZE]; /* fixext 16, type 'S', 16 random bytes */

/* nil bytes wanted before a bin32 head at position pos, so that what follows the head is aligned */
static inline unsigned nts_pad(uint64_t pos)
{
    return (unsigned)(-(pos + 5) & (NTS_ALIGN - 1));
}
/* length of the end ext's data at position pos: 8 bytes of hash and zeros up to a multiple of 64 */
static inline unsigned nts_end_size(uint64_t pos)
{
    return 8 + (unsigned)(-(pos + 11) & (NTS_ALIGN - 1));
}

void nts_hash_text(uint64_t h, char out[17]); /* 16 lower-case hex digits */

json_t *stream_identity(const struct stream_reader *r); /* {name, xxh3, bytes}; new reference */
json_t *stream_history(const struct stream_reader *r);  /* array of all that was read; borrowed */
void stream_note_history(struct stream_writer *w, const json_t *history);
/* A stream with this very header (producer too), for tools that pass records on: equal records then have an
 * equal hash. params (taken over, may be NULL) go to the history entry. */
struct stream_writer *stream_create_like(struct outfile *out, const json_t *header, json_t *params,
                                         struct err *e);

/* JSON to msgpack; integers as short as they go, key order kept. */
void nts_pack_json(msgpack_packer *p, const json_t *j);
/* One complete msgpack map, n bytes, to a JSON object; refuses binary, extensions, duplicate keys, non-finite
 * numbers. */
json_t *nts_unpack_map(const void *p, size_t n, struct err *e);
json_t *nts_object_json(const msgpack_object *o, struct err *e);

/* The extent of a msgpack object whose bytes arrive one after the other: feed it and it says when the object
 * is whole, without ever trusting a length. */
struct nts_extent {
    uint64_t left[NTS_DEPTH_MAX]; /* children still to come, per open array or map */
    int depth;
};
/* Looks at a head byte; sets *more to the bytes that belong to this head beyond itself (length fields, or
 * fixed data). *lenbytes > 0: the last *lenbytes of those are a big-endian length. -1: not legal msgpack. */
int nts_head(uint8_t head, unsigned *more, unsigned *lenbytes);
/* After a head and its length: body bytes of strings and blobs in *body. 1: the object is whole after that
 * body, 0: go on, -1: too deep. */
int nts_extent_step(struct nts_extent *x, uint8_t head, uint64_t length, uint64_t *body);
#endif
