// Small matrices, by rows.
#pragma once
#include <stdint.h>

// Cholesky's factor of B (D, D), in its lower triangle; NaN where B is not positive definite. Reads no more than that.
void cholesky(double* B, int64_t D);
// X (D, columns) becomes L^-1 X, and L^-T X; of L (D, D) the lower triangle counts.
void solve_lower(const double* L, int64_t D, int64_t columns, double* X);
void solve_lower_transposed(const double* L, int64_t D, int64_t columns, double* X);
// out (D, D) += A A'; where A is upper triangular its lower triangle is not read.
void add_outer(const double* A, int64_t D, bool upper_triangular, double* out);
