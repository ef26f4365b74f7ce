/* SPDX-License-Identifier: Apache-2.0
 * The GPTQ layout, version 2: a zero of 0 does not wrap, and GPTQModel takes asymmetric codes from anybody. */
#include "common/packers/gptq.h"

const struct packer pack_gptq_v2 = {
    .name = "gptq-v2",
    .summary = "GPTQ directory, version 2: asymmetric codes for GPTQModel and vLLM",
    .directory = true,
    .size = PACK_CODES,
    .write = codes_write,
    .codes = &gptq_v2,
};
