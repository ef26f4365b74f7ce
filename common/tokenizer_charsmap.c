/* SPDX-License-Identifier: Apache-2.0
 * The "Precompiled" normalizer: SentencePiece's table of replacements, a double array (Darts) followed by the
 * replacements, each ended by NUL. Applied as Hugging Face tokenizers do it: to a whole grapheme of less than
 * six bytes if the table knows its beginning, else to each of its characters. */
#include <string.h>
#include <utf8proc.h>
#include "common/tokenizer_text.h"

static uint32_t u32_at(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;
    return u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
}

int base64_decode(const char *s, size_t n, struct buf *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0;
    if (n % 4) return -1;
    for (size_t i = 0; i < n; i++) {
        size_t pad = s[i] != '=' ? 0 : n - i;
        const char *d = s[i] && !pad ? strchr(digits, s[i]) : NULL;
        if (!d && (pad > 2 || !pad || (pad == 2 && s[n - 1] != '='))) return -1;
        bits = bits << 6 | (d ? (uint32_t)(d - digits) : 0);
        if (i % 4 != 3) continue;
        char b[3] = {(char)(bits >> 16), (char)(bits >> 8), (char)bits};
        buf_put(out, b, s[i] != '=' ? 3 : s[i - 1] != '=' ? 2 : 1);
        bits = 0;
    }
    return 0;
}

int charsmap_check(const char *map, size_t n, const char *name, struct err *e)
{
    uint32_t size = n >= 4 ? u32_at(map) : 0;
    if (size < 4 || size % 4 || size > n - 4)
        return err_set(e, NT_EXIT_DATA, "%s: precompiled_charsmap is no table", name);
    if (!text_valid(map + 4 + size, n - 4 - size))
        return err_set(e, NT_EXIT_DATA, "%s: precompiled_charsmap gives bytes that are not UTF-8", name);
    return 0;
}

/* The replacement of the shortest beginning of s that the table knows, or NULL. */
static const char *find(const char *map, size_t map_n, const char *s, size_t n, size_t *len)
{
    const char *array = map + 4, *texts = array + u32_at(map);
    size_t units = u32_at(map) / 4, left = map_n - 4 - 4 * units;
    uint32_t unit = u32_at(array);
    uint32_t at = (unit >> 10) << ((unit & 1u << 9) >> 6);
    for (size_t i = 0; i < n && s[i]; i++) {
        at ^= (unsigned char)s[i];
        if (at >= units) return NULL;
        unit = u32_at(array + 4 * (size_t)at);
        if ((unit & (1u << 31 | 0xFF)) != (unsigned char)s[i]) return NULL;
        at ^= (unit >> 10) << ((unit & 1u << 9) >> 6);
        if (!(unit >> 8 & 1)) continue;
        size_t off = at < units ? u32_at(array + 4 * (size_t)at) & 0x7FFFFFFF : SIZE_MAX;
        if (off >= left) return NULL;
        const char *end = memchr(texts + off, 0, left - off);
        *len = end ? (size_t)(end - texts) - off : left - off;
        return texts + off;
    }
    return NULL;
}

static bool put(const char *map, size_t map_n, const char *s, size_t n, struct buf *out)
{
    size_t len;
    const char *text = find(map, map_n, s, n, &len);
    if (text) buf_put(out, text, len);
    return text != NULL;
}

void charsmap_apply(const char *map, size_t map_n, const char *p, size_t n, struct buf *out)
{
    for (size_t i = 0, k; i < n; i += k) {
        int32_t before, c, state = 0;
        k = char_at(p + i, n - i, &before);
        for (size_t step; i + k < n; k += step, before = c) {
            step = char_at(p + i + k, n - i - k, &c);
            if ((before < 0x80 && c < 0x80 && before != '\r') ||
                utf8proc_grapheme_break_stateful(before, c, &state))
                break;
        }
        if (k < 6 && put(map, map_n, p + i, k, out)) continue;
        for (size_t j = 0, step; j < k; j += step) {
            step = char_at(p + i + j, k - j, &c);
            if (!put(map, map_n, p + i + j, step, out)) buf_put(out, p + i + j, step);
        }
    }
}
