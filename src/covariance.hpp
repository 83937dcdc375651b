// The 14 covariance models and their maximum-likelihood covariances given scatters.
#pragma once
#include <stdint.h>

#include "memory.hpp"

enum Factor : int64_t { NONE = 0, EQUAL = 1, VARYING = 2 };  // over the components

// Covariance k is volume_k Q_k diag(a_k) Q_k' with prod(a_k) = 1; shape is a, orientation Q.
struct CovarianceModel {
    int64_t volume, shape, orientation;  // each a Factor
};

// x'y of n entries. Eight products at once, which need not wait for one another.
double dot(const double* x, const double* y, int64_t n);

// Fill P with the upper triangular P of covariance^-1 = P P', both (D, D); return the smallest relative pivot, the
// variance that a feature keeps given those before it over its own: 0 where the matrix is not positive definite, and then
// P is not to be used.
double precision_cholesky(const double* covariance, int64_t D, double* P);

// What finding them takes.
struct CovarianceRoom {
    Array<double> n, lam, previous;  // (K,)
    Array<double> a, c;              // (K, D)
    Array<double> Q, T;              // (K, D, D): T_k = Q_k' W_k Q_k; common axes are Q_0
    Array<double> total, product;    // (D, D)
    Array<double> order;             // (D,)

    CovarianceRoom(int64_t K, int64_t D)
        : n(K), lam(K), previous(K), a(K * D), c(K * D), Q(K * D * D), T(K * D * D), total(D * D), product(D * D),
          order(D) {}
    bool missing() const { return ::missing(n, lam, previous, a, c, Q, T, total, product, order); }
};

// Covariances (K, D, D) of a model that maximise -1/2 sum_k (counts_k log|S_k| + tr(S_k^-1 W_k)), scatters W (K, D, D).
// Common axes are sought from those of the covariances passed in where these are `warm`, so that no M-step loses what the
// one before had found. A singular scatter gives a singular or NaN covariance and is left to `precision_cholesky` to find.
void constrained_covariances(const CovarianceModel& model, int64_t K, int64_t D, const double* counts, const double* W,
                             bool warm, double* covariances, const CovarianceRoom& room);
