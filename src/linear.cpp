#include "linear.hpp"

#include <math.h>

void cholesky(double* B, int64_t D) {
    for (int64_t i = 0; i < D; i++)
        for (int64_t j = 0; j <= i; j++) {
            double s = B[i * D + j];
            for (int64_t p = 0; p < j; p++) s -= B[i * D + p] * B[j * D + p];
            B[i * D + j] = i == j ? sqrt(s) : s / B[j * D + j];
        }
}

void solve_lower(const double* L, int64_t D, int64_t columns, double* X) {
    for (int64_t i = 0; i < D; i++) {
        for (int64_t p = 0; p < i; p++)
            for (int64_t j = 0; j < columns; j++) X[i * columns + j] -= L[i * D + p] * X[p * columns + j];
        for (int64_t j = 0; j < columns; j++) X[i * columns + j] /= L[i * D + i];
    }
}

void solve_lower_transposed(const double* L, int64_t D, int64_t columns, double* X) {
    for (int64_t i = D - 1; i >= 0; i--) {
        for (int64_t p = i + 1; p < D; p++)
            for (int64_t j = 0; j < columns; j++) X[i * columns + j] -= L[p * D + i] * X[p * columns + j];
        for (int64_t j = 0; j < columns; j++) X[i * columns + j] /= L[i * D + i];
    }
}

void add_outer(const double* A, int64_t D, bool upper_triangular, double* out) {
    for (int64_t i = 0; i < D; i++)
        for (int64_t j = 0; j <= i; j++) {
            double s = 0.0;
            for (int64_t p = upper_triangular ? i : 0; p < D; p++) s += A[i * D + p] * A[j * D + p];
            out[i * D + j] += s;
            if (j < i) out[j * D + i] += s;
        }
}
