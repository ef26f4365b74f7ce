/* SPDX-License-Identifier: Apache-2.0
 * Allocation that cannot fail: 64-byte aligned, overflow-checked; dies with NT_EXIT_DEVICE and the size asked
 * for. */
#ifndef NT_MEM_H
#define NT_MEM_H
#include <stddef.h>
#include <stdint.h>

void *mem_array(size_t n, size_t size); /* zeroed; n or size 0 gives a valid pointer */
void *mem_grow(void *p, size_t *cap, size_t want,
               size_t size); /* at least `want` items, contents kept; NULL p ok */
void mem_free(void *p);      /* NULL ok */
char *mem_strdup(const char *s);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* --max-mem: a budget that stages compare their prediction with before they start; 0 = no limit given. */
void mem_set_limit(uint64_t bytes);
uint64_t mem_limit(void);

#define MEM_NEW(T, n) ((T *)mem_array((n), sizeof(T)))
#endif
