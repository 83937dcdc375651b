#include "axes.hpp"

#include <math.h>
#include <string.h>

void axes_of_frame(const double* Z, int64_t D, double* axes, double* R) {
    const int64_t n = D - 1;
    memset(R, 0, size_t(n * n) * sizeof(double));
    for (int64_t j = 0; j < D; j++) {
        int64_t lone = 0;  // the last axis is what is left of the unit vector that the others leave most of
        double most = -1.0;
        for (int64_t i = 0; i < D && j == n; i++) {
            double left = 1.0;
            for (int64_t m = 0; m < n; m++) left -= axes[i * D + m] * axes[i * D + m];
            if (left > most) most = left, lone = i;
        }
        for (int64_t i = 0; i < D; i++) axes[i * D + j] = j < n ? Z[i * n + j] : double(i == lone);
        for (int repeat = 0; repeat < 2; repeat++)  // the second time for what rounding left
            for (int64_t m = 0; m < j; m++) {
                double along = 0.0;
                for (int64_t i = 0; i < D; i++) along += axes[i * D + m] * axes[i * D + j];
                for (int64_t i = 0; i < D; i++) axes[i * D + j] -= along * axes[i * D + m];
                if (j < n) R[m * n + j] += along;
            }
        double length = 0.0;
        for (int64_t i = 0; i < D; i++) length += axes[i * D + j] * axes[i * D + j];
        length = sqrt(length);
        for (int64_t i = 0; i < D; i++) axes[i * D + j] /= length;
        if (j < n) R[j * n + j] = length;
    }
}

void factor_along_axes(const double* axes, const double* root, int64_t D, double* P, double* O) {
    memset(P, 0, size_t(D * D) * sizeof(double));
    for (int64_t i = D - 1; i >= 0; i--) {  // Gram and Schmidt's way by rows, from the last
        double *row = O + i * D, length = 0.0;
        for (int64_t j = 0; j < D; j++) row[j] = axes[i * D + j] * root[j];
        for (int repeat = 0; repeat < 2; repeat++)
            for (int64_t m = i + 1; m < D; m++) {
                double along = 0.0;
                for (int64_t j = 0; j < D; j++) along += row[j] * O[m * D + j];
                for (int64_t j = 0; j < D; j++) row[j] -= along * O[m * D + j];
                P[i * D + m] += along;
            }
        for (int64_t j = 0; j < D; j++) length += row[j] * row[j];
        P[i * D + i] = length = sqrt(length);
        for (int64_t j = 0; j < D; j++) row[j] /= length;
    }
}

// P^-1 dM O' is an upper triangular change of P and a turn, so that dM = P^-T H O with H = P' dP mirrored at its diagonal.
void gradient_along_axes(const double* P, const double* O, const double* dP, int64_t D, double* work, double* C) {
    double *H = work, *product = work + D * D;
    memset(work, 0, size_t(2 * D * D) * sizeof(double));
    memset(C, 0, size_t(D * D) * sizeof(double));
    for (int64_t i = 0; i < D; i++)
        for (int64_t j = i; j < D; j++) {
            double s = 0.0;
            for (int64_t p = 0; p <= i; p++) s += P[p * D + i] * dP[p * D + j];
            H[i * D + j] = H[j * D + i] = s;
        }
    for (int64_t i = 0; i < D; i++)
        for (int64_t p = 0; p < D; p++)
            for (int64_t j = 0; j < D; j++) product[i * D + j] += H[i * D + p] * O[p * D + j];
    for (int64_t p = 0; p < D; p++)
        for (int64_t i = 0; i < D; i++)
            for (int64_t j = 0; j < D; j++) C[i * D + j] += O[p * D + i] * product[p * D + j];
}

// axes' dZ R^-1 is a turn of the axes and an upper triangular change of R.
void pull_back_frame(const double* axes, const double* R, const double* turn, const double* dR, int64_t D, double* work,
                     double* by_frame) {
    const int64_t n = D - 1;
    double* X = work;  // (D, n)
    memset(X, 0, size_t(D * n) * sizeof(double));
    for (int64_t i = 0; i < D; i++)
        for (int64_t j = 0; j < n && j < i; j++) X[i * n + j] = turn[i * D + j];
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = i; j < n; j++) {
            double s = 0.0;
            for (int64_t p = j; p < n; p++) s += dR[i * n + p] * R[j * n + p];
            X[i * n + j] += s;
            if (i < j) X[j * n + i] += s;
        }
    for (int64_t i = 0; i < D; i++)  // X R^-T
        for (int64_t j = n - 1; j >= 0; j--) {
            for (int64_t p = j + 1; p < n; p++) X[i * n + j] -= X[i * n + p] * R[j * n + p];
            X[i * n + j] /= R[j * n + j];
        }
    for (int64_t i = 0; i < D; i++)
        for (int64_t p = 0; p < D; p++)
            for (int64_t j = 0; j < n; j++) by_frame[i * n + j] += axes[i * D + p] * X[p * n + j];
}
