/* SPDX-License-Identifier: Apache-2.0
 * The GPTQ layout, version 2: a zero of 0 does not wrap, and GPTQModel takes asymmetric codes from anybody. */
#include "common/packers/gptq.h"

static int write_gptq_v2(struct pack *p, struct err *e)
{
    return codes_write(p, &gptq_v2, e);
}

const struct packer pack_gptq_v2 = {
    .name = "gptq-v2",
    .summary = "GPTQ directory, version 2: asymmetric codes for GPTQModel and vLLM",
    .directory = true,
    .size = PACK_CODES,
    .write = write_gptq_v2,
};
