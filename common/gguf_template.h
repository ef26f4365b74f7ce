/* SPDX-License-Identifier: Apache-2.0
 * A GGUF file of the model's keys, vocabulary and tensor names without the tensors' values, for models that
 * come from elsewhere: what --like takes from a file. */
#ifndef NT_GGUF_TEMPLATE_H
#define NT_GGUF_TEMPLATE_H
#include "common/outfile.h"
#include "common/pack.h"

/* NULL and the reason where GGUF cannot say what the model computes, or its vocabulary has no such form.
 * *file: the temporary file that it lies in, for outfile_discard after checkpoint_close. */
struct checkpoint *gguf_template(const struct pack *p, struct outfile **file, struct err *e) NT_MUST_CHECK;
#endif
