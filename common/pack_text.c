/* SPDX-License-Identifier: Apache-2.0
 * Any stream as text: the header, every record with its numbers, the trailer. */
#include "common/pack.h"
#include <stdlib.h>

static void put_json(FILE *f, const char *what, const json_t *j)
{
    char *s = json_dumps(j, JSON_ENSURE_ASCII);
    fprintf(f, "%s\t%s\n", what, s ? s : "{}");
    free(s);
}

int pack_text(const char *path, FILE *f, struct err *e)
{
    struct stream_reader *r = stream_open(path, NULL, e);
    struct record rec;
    int rc = 1;
    if (!r) return -1;
    put_json(f, "header", stream_header(r));
    while (rc == 1 && (rc = stream_next(r, &rec, e)) == 1)
        if (stream_print(f, r, &rec, true, e) < 0) rc = -1;
    if (rc == 0) put_json(f, "trailer", stream_trailer(r));
    stream_close(r);
    return rc;
}
