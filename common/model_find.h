/* SPDX-License-Identifier: Apache-2.0
 * For model.c: which tensor of the checkpoint is which weight. */
#ifndef NT_MODEL_FIND_H
#define NT_MODEL_FIND_H
#include "common/model.h"

/* Fills m->layers and the tensors around them. */
int model_find_tensors(struct model *m, struct err *e) NT_MUST_CHECK;
#endif
