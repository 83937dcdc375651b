// The parts of a mixture that have conjugate conditionals: draws of them, and their densities. Of gibbs.cpp.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "linear.hpp"
#include "random.hpp"

enum Structure : int64_t { FULL, DIAGONAL, SPHERICAL };

// The prior, as far as the covariances' structure uses it: of a diagonal one's matrices only the diagonal is filled, of a
// spherical one's only the first entry. All arrays are C-contiguous and belong to the caller.
struct GibbsPrior {
    int64_t K, D;                        // components, features
    Structure structure;                 // of the covariances
    int64_t shared;                      // whether all components have the same
    const double *location, *precision;  // (D,), (D, D) of the means' normal prior
    double df;                           // of the covariances' inverse Wishart
    double strength;                     // degrees of freedom of its scale matrix B's own prior; 0 where B is given
    const double *inverse, *floor;       // (D, D) the inverse of that prior's scale; what is added to B
    const double* concentration;         // (K,) of the weights' Dirichlet prior; null where all have the same unknown one
    double rate;                         // of the unknown concentration's exponential prior
};

constexpr double TWO_PI = 6.283185307179586;
constexpr int CONCENTRATION_STEPS = 5;  // Metropolis steps of the concentration in a sweep

inline double normal(const Random& random) {  // Box and Muller
    const double radius = sqrt(-2.0 * log(1.0 - random.uniform()));
    return radius * cos(TWO_PI * random.uniform());
}

inline double gamma_variate(double shape, const Random& random) {  // Marsaglia and Tsang
    if (shape < 1.0) return gamma_variate(shape + 1.0, random) * pow(1.0 - random.uniform(), 1.0 / shape);
    const double d = shape - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d);
    for (;;) {
        const double x = normal(random), v = (1.0 + c * x) * (1.0 + c * x) * (1.0 + c * x);
        if (v > 0.0 && log(1.0 - random.uniform()) < 0.5 * x * x + d - d * v + d * log(v)) return d * v;
    }
}

inline double log_gamma_variate(double shape, const Random& random) {  // of small shapes, too, that would underflow
    return log(gamma_variate(shape + 1.0, random)) + log(1.0 - random.uniform()) / shape;
}

inline double chi_square(double df, const Random& random) { return 2.0 * gamma_variate(0.5 * df, random); }

// Draws of components from their prior and given their rows, and the densities of such draws.
struct Sampler {
    const GibbsPrior& prior;
    const Random& random;
    double* work;  // two matrices (D, D), and (D,)

    // P (D, D) with P P' a precision drawn given `rows` rows and their scatter, the prior's included: half its log
    // determinant. The scatter is overwritten.
    double precision_factor(double* scatter, double rows, double* P) const {
        const int64_t D = prior.D;
        const double df = prior.df;
        double half = 0.0;
        memset(P, 0, size_t(D * D) * sizeof(double));
        if (prior.structure == FULL) {
            cholesky(scatter, D);
            for (int64_t i = 0; i < D; i++) {
                P[i * D + i] = sqrt(chi_square(df + rows - double(i), random));
                half += log(P[i * D + i] / scatter[i * D + i]);
                for (int64_t j = 0; j < i; j++) P[i * D + j] = normal(random);
            }
            solve_lower_transposed(scatter, D, D, P);
            return half;
        }
        const double own = df - double(D) + 1.0;
        const double together = prior.structure == SPHERICAL ? chi_square(own + rows * double(D), random) : 0.0;
        for (int64_t j = 0; j < D; j++) {
            P[j * D + j] = prior.structure == SPHERICAL ? sqrt(together / scatter[0])
                                                        : sqrt(chi_square(own + rows, random) / scatter[j * D + j]);
            half += log(P[j * D + j]);
        }
        return half;
    }

    // W += the scatter of a row about a mean.
    void add_scatter(const double* x, const double* mean, double* W) const {
        const int64_t D = prior.D;
        for (int64_t i = 0; i < D; i++) {
            const double shift = x[i] - mean[i];
            if (prior.structure == FULL)
                for (int64_t j = 0; j < D; j++) W[i * D + j] += shift * (x[j] - mean[j]);
            else
                W[prior.structure == DIAGONAL ? i * D + i : 0] += shift * shift;
        }
    }

    // A mean given n rows of sum `total` with precision P P'.
    void draw_mean(const double* P, double n, const double* total, double* mean) const {
        const int64_t D = prior.D;
        double *A = work, *u = work + 2 * D * D;
        memset(A, 0, size_t(D * D) * sizeof(double));
        add_outer(P, D, false, A);
        for (int64_t i = 0; i < D; i++) {
            u[i] = 0.0;
            for (int64_t j = 0; j < D; j++) u[i] += A[i * D + j] * total[j] + prior.precision[i * D + j] * prior.location[j];
        }
        for (int64_t i = 0; i < D * D; i++) A[i] = n * A[i] + prior.precision[i];
        cholesky(A, D);
        solve_lower(A, D, 1, u);
        for (int64_t j = 0; j < D; j++) u[j] += normal(random);
        solve_lower_transposed(A, D, 1, u);
        memcpy(mean, u, size_t(D) * sizeof(double));
    }

    // B given the precisions P P' of the first `copies` components: Wishart, as a precision given a scatter is.
    void draw_scale_matrix(const double* P, int64_t copies, double* B) const {
        const int64_t D = prior.D;
        double *total = work, *A = work + D * D;
        memcpy(total, prior.inverse, size_t(D * D) * sizeof(double));
        for (int64_t k = 0; k < copies; k++, P += D * D)
            if (prior.structure == SPHERICAL)
                total[0] += P[0] * P[0];
            else
                add_outer(P, D, false, total);
        const double own = prior.structure == FULL ? prior.df : prior.df - double(D) + 1.0;
        const double rows = double(copies - 1) * own + prior.strength;
        precision_factor(total, prior.structure == SPHERICAL ? rows / double(D) : rows, A);
        if (prior.structure == SPHERICAL) {
            B[0] = A[0] * A[0];
            return;
        }
        memset(B, 0, size_t(D * D) * sizeof(double));
        add_outer(A, D, false, B);
    }

    // Log density of log alpha given the counts of N rows, up to a constant.
    double log_concentration(double alpha, const double* counts, int64_t N) const {
        const double all = double(prior.K) * alpha;
        double value = log(alpha) - prior.rate * alpha + lgamma(all) - lgamma(double(N) + all);
        for (int64_t k = 0; k < prior.K; k++)
            if (counts[k] > 0.0) value += lgamma(counts[k] + alpha) - lgamma(alpha);
        return value;
    }

    // Squared length of P' (x - mean).
    double distance(const double* x, const double* mean, const double* P) const {
        const int64_t D = prior.D;
        double q = 0.0;
        if (prior.structure != FULL) {
            for (int64_t m = 0; m < D; m++) {
                const double s = P[m * D + m] * (x[m] - mean[m]);
                q += s * s;
            }
            return q;
        }
        for (int64_t m = 0; m < D; m++) {
            double s = 0.0;
            for (int64_t j = 0; j < D; j++) s += P[j * D + m] * (x[j] - mean[j]);
            q += s * s;
        }
        return q;
    }

    // A mean about x, normal with precision P P'.
    void draw_about(const double* x, const double* P, double* mean) const {
        const int64_t D = prior.D;
        double *A = work, *u = work + 2 * D * D;
        memset(A, 0, size_t(D * D) * sizeof(double));
        add_outer(P, D, false, A);
        cholesky(A, D);
        for (int64_t j = 0; j < D; j++) u[j] = normal(random);
        solve_lower_transposed(A, D, 1, u);
        for (int64_t j = 0; j < D; j++) mean[j] = x[j] + u[j];
    }

    // Log prior density of a mean, up to a constant.
    double log_prior_of_mean(const double* mean) const {
        const int64_t D = prior.D;
        double q = 0.0;
        for (int64_t i = 0; i < D; i++)
            for (int64_t j = 0; j < D; j++)
                q += (mean[i] - prior.location[i]) * prior.precision[i * D + j] * (mean[j] - prior.location[j]);
        return -0.5 * q;
    }

    // Log density of the precision P P', of which `half` is half the log determinant, as precision_factor draws it.
    double log_density_of_precision(const double* P, double half, const double* scatter, double rows) const {
        const int64_t D = prior.D;
        if (prior.structure == FULL) {
            const double df = prior.df + rows;
            double *L = work, *Q = work + D * D, value = (df - double(D) - 1.0) * half - 0.5 * df * double(D) * log(2.0);
            memcpy(L, scatter, size_t(D * D) * sizeof(double));
            cholesky(L, D);
            memset(Q, 0, size_t(D * D) * sizeof(double));
            add_outer(P, D, false, Q);
            for (int64_t i = 0; i < D * D; i++) value -= 0.5 * Q[i] * scatter[i];
            for (int64_t i = 0; i < D; i++) value += df * log(L[i * D + i]) - lgamma(0.5 * (df - double(i)));
            return value;
        }
        const bool one = prior.structure == SPHERICAL;
        const double shape = 0.5 * (prior.df - double(D) + 1.0 + (one ? rows * double(D) : rows));
        double value = 0.0;
        for (int64_t j = 0; j < (one ? 1 : D); j++) {
            const double tau = P[j * D + j] * P[j * D + j], rate = 0.5 * scatter[j * D + j];
            value += shape * log(rate) - lgamma(shape) + (shape - 1.0) * log(tau) - rate * tau;
        }
        return value;
    }

    // Log density of a mean, as draw_mean draws it, without its power of 2 pi.
    double log_density_of_mean(const double* P, double n, const double* total, const double* mean) const {
        const int64_t D = prior.D;
        double *A = work, *u = work + 2 * D * D, value = 0.0;
        memset(A, 0, size_t(D * D) * sizeof(double));
        add_outer(P, D, false, A);
        for (int64_t i = 0; i < D; i++) {  // u = A (m - mean)
            u[i] = 0.0;
            for (int64_t j = 0; j < D; j++)
                u[i] += A[i * D + j] * (total[j] - n * mean[j]) + prior.precision[i * D + j] * (prior.location[j] - mean[j]);
        }
        for (int64_t i = 0; i < D * D; i++) A[i] = n * A[i] + prior.precision[i];
        cholesky(A, D);
        solve_lower(A, D, 1, u);
        for (int64_t i = 0; i < D; i++) value += log(A[i * D + i]) - 0.5 * u[i] * u[i];
        return value;
    }
};
