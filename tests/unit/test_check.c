/* SPDX-License-Identifier: Apache-2.0
 * The harness itself: the comparison the numeric tests rest on must see a NaN and a wrong value. */
#include "tests/check.h"

int main(void)
{
    double want[3] = {1, -2, 4};
    float same[3] = {1, -2, 4}, off[3] = {1, -2.5f, 4}, nan3[3] = {1, NAN, 4};
    CHECK(check_rel(same, want, 3) == 0, "equal arrays differ by 0");
    CHECK(fabs(check_rel(off, want, 3) - 0.125) < 1e-12, "the difference is relative to the largest value");
    CHECK(isinf(check_rel(nan3, want, 3)), "a NaN is infinitely wrong");
    return check_done();
}
