// The true values of rows that are missing some, or were measured with errors: how probable what was measured of a row is in
// each component, and draws of the values behind it. Of gibbs.cpp.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "conjugate.hpp"
#include "linear.hpp"
#include "memory.hpp"
#include "patterns.hpp"

class Measured {
    const double* Y;
    const Patterns& patterns;
    const Random& random;
    const int64_t K, D, square;
    // Of each component: its covariance, the lower factor of its precision; and in a group of rows the factor of the
    // covariance of what was measured, with its log determinant's half.
    Array<double> covariance, root, measured, half;
    Array<double> errors, residual, shift;  // (D, D) a factor of the group's errors; (K, D); (D,)
    const int64_t* columns = nullptr;       // of the group
    const double* S = nullptr;              // (D, D) covariance of its errors, if there are any
    int64_t d = 0;                          // how many columns were measured

  public:
    Measured(const double* Y, const Patterns& patterns, int64_t K, const Random& random)
        : Y(Y), patterns(patterns), random(random), K(K), D(patterns.D), square(D * D), covariance(K * square),
          root(K * square), measured(K * square), half(K), errors(square), residual(K * D), shift(D) {}
    bool no_memory() const { return missing(covariance, root, measured, half, errors, residual, shift); }

    // Given the factors P (K, D, D) of the components' precisions P P'.
    void set_components(const double* P) {
        memset(root, 0, size_t(K * square) * sizeof(double));
        memset(covariance, 0, size_t(K * square) * sizeof(double));
        for (int64_t k = 0; k < K; k++) {
            double *L = root + k * square, *own = covariance + k * square;
            add_outer(P + k * square, D, false, L);
            cholesky(L, D);
            for (int64_t j = 0; j < D; j++) own[j * D + j] = 1.0;
            solve_lower(L, D, D, own);
            solve_lower_transposed(L, D, D, own);
        }
    }

    void set_group(int64_t group) {
        columns = patterns.columns + group * D;
        d = patterns.n_observed[group];
        S = patterns.errors ? patterns.errors + group * square : nullptr;
        for (int64_t k = 0; k < K; k++) {
            double* T = measured + k * square;
            for (int64_t i = 0; i < d; i++)
                for (int64_t j = 0; j <= i; j++) {
                    const int64_t at = columns[i] * D + columns[j];
                    T[i * d + j] = covariance[k * square + at] + (S ? S[at] : 0.0);
                }
            cholesky(T, d);
            half[k] = 0.0;
            for (int64_t i = 0; i < d; i++) half[k] += log(T[i * d + i]);
        }
        for (int64_t i = 0; S && i < d; i++)  // Cholesky's factor, with a column of zeros where nothing is left
            for (int64_t j = 0; j <= i; j++) {
                double s = S[columns[i] * D + columns[j]], &pivot = errors[j * d + j];
                for (int64_t p = 0; p < j; p++) s -= errors[i * d + p] * errors[j * d + p];
                if (i == j)
                    pivot = s > 1e-14 * S[columns[i] * (D + 1)] ? sqrt(s) : 0.0;
                else
                    errors[i * d + j] = pivot > 0.0 ? s / pivot : 0.0;
            }
    }

    // Log density of what was measured of a row in component k, without its power of 2 pi.
    double log_density(int64_t row, int64_t k, const double* mean) {
        double *u = residual + k * D, q = 0.0;
        for (int64_t i = 0; i < d; i++) u[i] = Y[row * D + columns[i]] - mean[columns[i]];
        solve_lower(measured + k * square, d, 1, u);
        for (int64_t i = 0; i < d; i++) q += u[i] * u[i];
        return -half[k] - 0.5 * q;
    }

    // True values x (D,) of a row of component k: values drawn of the component, moved by what measuring them, with errors
    // drawn too, would have been off from what was measured (Matheron's rule).
    void draw(int64_t row, int64_t k, const double* mean, double* x) {
        const double *own = covariance + k * square, *T = measured + k * square, *y = Y + row * D;
        double* off = residual + k * D;
        for (int64_t j = 0; j < D; j++) shift[j] = normal(random);
        solve_lower_transposed(root + k * square, D, 1, shift);
        for (int64_t j = 0; j < D; j++) x[j] = mean[j] + shift[j];
        for (int64_t i = 0; i < d; i++) off[i] = y[columns[i]] - x[columns[i]];
        if (S) {
            for (int64_t i = 0; i < d; i++) shift[i] = normal(random);
            for (int64_t i = 0; i < d; i++)
                for (int64_t j = 0; j <= i; j++) off[i] -= errors[i * d + j] * shift[j];
        }
        solve_lower(T, d, 1, off);
        solve_lower_transposed(T, d, 1, off);
        for (int64_t j = 0; j < D; j++)
            for (int64_t i = 0; i < d; i++) x[j] += own[j * D + columns[i]] * off[i];
        for (int64_t i = 0; i < d; i++)
            if (!S || S[columns[i] * (D + 1)] == 0.0) x[columns[i]] = y[columns[i]];  // to the last digit
    }
};
