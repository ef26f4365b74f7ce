/* SPDX-License-Identifier: Apache-2.0
 * A copy of a finished checkpoint in which the bytes of some tensors are others, and nothing else: same
 * header, same places. Files without such tensors are linked or copied. The copy is read again and compared.
 */
#ifndef NT_PACK_PATCH_H
#define NT_PACK_PATCH_H
#include "common/checkpoint.h"

/* New bytes for one tensor of the checkpoint. */
struct patch {
    const struct checkpoint_tensor *t;
    uint8_t *bytes; /* owned */
};

struct patches {
    struct checkpoint *ck; /* borrowed */
    struct patch *list;
    size_t n, cap;
    /* after patch_write, from the copy as it was read again: */
    uint64_t changed; /* elements that differ from the original's */
    json_t *files;    /* [{name, sha256 of the original, sha256}] of the files that hold patches; owned */
};

void patch_add(struct patches *p, const struct checkpoint_tensor *t, uint8_t *bytes /* taken */);
/* Copies checkpoint `from` (a file, a split file, a directory) to `to`. sidecar, called with p when the copy
 * is proved, gives what is written as JSON beside it: nt-norms.json in a directory, TO.nt-norms.json beside a
 * file; nothing where `to` is a pipe. */
int patch_write(struct patches *p, const char *from, const char *to,
                json_t *(*sidecar)(const struct patches *p, void *ctx), void *ctx,
                struct err *e) NT_MUST_CHECK;
void patch_clear(struct patches *p);
#endif
