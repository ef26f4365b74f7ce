/* SPDX-License-Identifier: Apache-2.0
 * The two versions of the GPTQ layout, which store zeros as zero - 1 and as they are. */
#ifndef NT_PACKERS_GPTQ_H
#define NT_PACKERS_GPTQ_H
#include "common/pack_codes.h"

extern const struct codes_format gptq_v1, gptq_v2;
#endif
