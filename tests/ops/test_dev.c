/* SPDX-License-Identifier: Apache-2.0
 * Opaque device addresses: offsets count 4-byte elements, and 0 means none. */
#include "kernels/backend.h"
#include "tests/check.h"

int main(void)
{
    dev p = {4096};
    CHECK(dev_at(p, 3).at == 4096 + 12, "offsets count elements of 4 bytes");
    CHECK(dev_ok(p) && !dev_ok(DEV_NONE), "none is no address");
    return check_done();
}
