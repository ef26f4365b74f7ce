/* SPDX-License-Identifier: Apache-2.0
 * A symmetric positive definite matrix in double precision as its lower triangle alone, in square tiles:
 * factored and inverted in place. What a quantizer's Hessian takes beside itself is this, half of a full
 * matrix. */
#ifndef NT_TRIANGLE_H
#define NT_TRIANGLE_H
#include <stddef.h>

#define TRIANGLE_TILE 128 /* fixed, so that results do not depend on threads */

/* Tile (row, col), row >= col, holds rows row*TILE .. and columns col*TILE .., column-major with leading
 * dimension TILE. Rows past n are zero; so are the upper parts of diagonal tiles. */
int triangle_tiles(int n);      /* a side */
size_t triangle_doubles(int n); /* of the whole */
double *triangle_tile(double *A, int n, int row, int col);

/* A = L L', L over A. 0, or 1: not positive definite. */
int triangle_factor(double *A, int n);
/* inverse(L) over L. */
void triangle_invert(double *L, int n);
#endif
