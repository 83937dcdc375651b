#include "likelihood.hpp"

#include <string.h>

#include "memory.hpp"
#include "patterns.hpp"

void by_mean_and_precision(int64_t D, const double* P, const double* first, const double* scatter, double* room,
                           double* by_mean, double* by_P) {
    for (int64_t j = 0; j < D; j++) {
        room[j] = 0.0;  // P' first
        for (int64_t i = 0; i <= j; i++) room[j] += P[i * D + j] * first[i];
    }
    memset(by_P, 0, size_t(D * D) * sizeof(double));
    for (int64_t i = 0; i < D; i++) {
        by_mean[i] = 0.0;
        for (int64_t j = i; j < D; j++) by_mean[i] += P[i * D + j] * room[j];
        for (int64_t m = 0; m < D; m++)  // - scatter P
            for (int64_t j = m > i ? m : i; j < D; j++) by_P[i * D + j] -= scatter[i * D + m] * P[m * D + j];
    }
}

// The rows' log densities and their pullback for PyTensor, whose code calls them by name. Of the rows' patterns there are
// n, 0 where all values are known and exact, and n_errors, n or 0, have errors. Where n_noise, N or 0, rows have a density of
// noise, its log weight follows the log scales.

static const double one = 1.0;

// out (N,), nats; only entries of rows with a value are written.
API int64_t gmm_rows_log_prob(int64_t N, int64_t D, int64_t K, int64_t diagonal, int64_t n, int64_t n_errors, int64_t n_noise,
                              const double* X, const double* center, const int64_t* order, const int64_t* start, const int64_t* n_observed,
                              const int64_t* columns, const double* errors, const double* noise, const double* log_scale,
                              const double* offsets, const double* P, double* out) {
    const Patterns patterns{D,          n,       n ? start[n] : N,            order,   start,
                            n_observed, columns, n_errors ? errors : nullptr, nullptr, 0,     0};
    const Rows rows{X, center, &one, 1, nullptr, n_noise ? noise : nullptr, n ? &patterns : nullptr};
    return log_prob(rows, {K, D, log_scale, offsets, P, diagonal, n_noise ? log_scale[K] : 0.0}, 0, patterns.n_rows, out);
}

// Gradient of sum_i cotangent_i log p(x_i) by log_scale (K,) or (K + 1,), offsets (K, D) and the upper triangles of P (K, D, D).
API int64_t gmm_rows_pullback(int64_t N, int64_t D, int64_t K, int64_t diagonal, int64_t n, int64_t n_errors, int64_t n_noise,
                              const double* X, const double* center, const int64_t* order, const int64_t* start, const int64_t* n_observed,
                              const int64_t* columns, const double* errors, const double* noise, const double* log_scale,
                              const double* offsets, const double* P, const double* cotangent, double* by_log_scale, double* by_offsets,
                              double* by_P) {
    Array<double> first(K * D), scatter(K * D * D), room(D);
    if (missing(first, scatter, room)) return NO_MEMORY;
    Sums sums;
    const Patterns patterns{D,          n,       n ? start[n] : N,            order,   start,
                            n_observed, columns, n_errors ? errors : nullptr, nullptr, 0,     0};
    const Rows rows{X, center, cotangent, N, nullptr, n_noise ? noise : nullptr, n ? &patterns : nullptr};
    const Mixture mixture{K, D, log_scale, offsets, P, diagonal, n_noise ? log_scale[K] : 0.0};
    const Status status = accumulate(rows, mixture, 0, patterns.n_rows, true, {by_log_scale, first, scatter}, sums);
    if (n_noise) by_log_scale[K] = sums.noise;
    for (int64_t k = 0; k < K && status == DONE; k++)
        by_mean_and_precision(D, P + k * D * D, first + k * D, scatter + k * D * D, room, by_offsets + k * D,
                              by_P + k * D * D);
    return status;
}
