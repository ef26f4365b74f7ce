/* SPDX-License-Identifier: Apache-2.0
 * The part of tool.c that needs the kernels. A file of its own, so that a tool without arithmetic (nt-stream)
 * neither links the backend nor executes itself again for BLAS's sake. */
#include "common/tool.h"

void (*const tool_early)(char **argv) = backend_early;

struct backend *tool_backend(const struct tool *t)
{
    return backend_open(t->device, (int)t->threads, t->precision[0] == 'b');
}
