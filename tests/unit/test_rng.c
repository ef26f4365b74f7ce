/* SPDX-License-Identifier: Apache-2.0
 * Philox against the published vectors: file tests/kat_vectors of DEShaw Research's Random123 1.14, lines
 * "philox4x32 10" (counter, key, expected). */
#include "common/rng.h"
#include "tests/check.h"

int main(void)
{
    static const struct {
        uint64_t counter, stream, seed;
        uint32_t want[4];
    } kat[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {~0ull, ~0ull, ~0ull, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x85a308d3243f6a88,
         0x0370734413198a2e,
         0x299f31d0a4093822,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    uint32_t out[4];
    for (size_t i = 0; i < sizeof kat / sizeof *kat; i++) {
        rng_block(kat[i].seed, kat[i].stream, kat[i].counter, out);
        CHECK(!memcmp(out, kat[i].want, sizeof out), "known answer %zu", i);
    }
    CHECK(rng_u32(0, 0, 0) == 0x6627e8d5, "u32 is the first word");
    CHECK(rng_uniform(0, 0, 0) == (double)(0xe169c58d6627e8d5ull >> 11) / 9007199254740992.0,
          "uniform has 53 bits of words 0, 1");

    double sum = 0, sq = 0;
    int n = 200000, hist[7] = {0}, bad = 0;
    for (int i = 0; i < n; i++) {
        double u = rng_uniform(42, 7, (uint64_t)i);
        uint64_t b = rng_below(42, 8, (uint64_t)i, 7);
        bad += u < 0 || u >= 1 || b >= 7;
        sum += u, sq += u * u;
        if (b < 7) hist[b]++;
    }
    CHECK(!bad, "ranges");
    CHECK(fabs(sum / n - 0.5) < 0.003 && fabs(sq / n - 1.0 / 3) < 0.003, "moments of uniform");
    double chi = 0;
    for (int i = 0; i < 7; i++) chi += pow(hist[i] - n / 7.0, 2) / (n / 7.0);
    CHECK(chi < 22.5, "below(7) is even: chi2 %.2f, 6 degrees of freedom, p 0.001", chi);
    CHECK(rng_below(1, 2, 3, 1) == 0, "below(1) is 0");
    return check_done();
}
