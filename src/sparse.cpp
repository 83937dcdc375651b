// Gibbs sampling of the assignments of an overfitted mixture; bayesgmm/bayes/sparse.py says by which method.
#include <math.h>
#include <string.h>

#include "api.hpp"
#include "linear.hpp"
#include "memory.hpp"
#include "random.hpp"

enum Structure : int64_t { FULL, DIAGONAL, SPHERICAL };

// The prior, as far as the covariances' structure uses it: of a diagonal one's matrices only the diagonal is filled, of a
// spherical one's only the first entry. All arrays are C-contiguous and belong to the caller.
struct Overfitted {
    int64_t K, D;                        // components, features
    Structure structure;                 // of the covariances
    int64_t shared;                      // whether all components have the same
    const double *location, *precision;  // (D,), (D, D) of the means' normal prior
    double df;                           // of the covariances' inverse Wishart
    double strength;                     // degrees of freedom of its scale matrix B's own prior; 0 where B is given
    const double *inverse, *floor;       // (D, D) the inverse of that prior's scale; what is added to B
    double rate;                         // of the concentration's exponential prior
};

namespace {

constexpr double TWO_PI = 6.283185307179586;
constexpr int CONCENTRATION_STEPS = 5;  // Metropolis steps of the concentration in a sweep

double normal(const Random& random) {  // Box and Muller
    const double radius = sqrt(-2.0 * log(1.0 - random.uniform()));
    return radius * cos(TWO_PI * random.uniform());
}

double gamma_variate(double shape, const Random& random) {  // Marsaglia and Tsang
    if (shape < 1.0) return gamma_variate(shape + 1.0, random) * pow(1.0 - random.uniform(), 1.0 / shape);
    const double d = shape - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d);
    for (;;) {
        const double x = normal(random), v = (1.0 + c * x) * (1.0 + c * x) * (1.0 + c * x);
        if (v > 0.0 && log(1.0 - random.uniform()) < 0.5 * x * x + d - d * v + d * log(v)) return d * v;
    }
}

double chi_square(double df, const Random& random) { return 2.0 * gamma_variate(0.5 * df, random); }

struct Sampler {
    const Overfitted& prior;
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
        double* s = work;
        for (int64_t m = 0; m < D; m++) s[m] = 0.0;
        for (int64_t j = 0; j < D; j++)
            for (int64_t m = 0; m < D; m++) s[m] += P[j * D + m] * (x[j] - mean[j]);
        for (int64_t m = 0; m < D; m++) q += s[m] * s[m];
        return q;
    }
};

}  // namespace

API int64_t gmm_sizeof_overfitted() { return sizeof(Overfitted); }

// One chain from assignments z (N,), means (K, D), the scale matrix B (D, D) and the concentration alpha, which all
// change: the number of components that hold rows and the concentration after each of n_draws times `thin` sweeps.
API int64_t gmm_overfitted(const double* X, int64_t N, const Overfitted* prior, const Random* random, int64_t n_draws,
                           int64_t thin, int64_t* z, double* means, double* B, double* alpha, int64_t* filled,
                           double* concentration) {
    const int64_t K = prior->K, D = prior->D, square = D * D;
    const bool shared = prior->shared, learned = prior->strength > 0.0;
    Array<double> counts(K), totals(K * D), scatter(K * square), P(K * square), half(K), odds(K), work(2 * square + D);
    if (missing(counts, totals, scatter, P, half, odds, work)) return NO_MEMORY;
    const Sampler sampler{*prior, *random, work};
    for (int64_t sweep = 0; sweep < n_draws * thin; sweep++) {
        for (int64_t k = 0; k < K; k++) {
            counts[k] = 0.0;
            for (int64_t i = 0; i < square; i++) scatter[k * square + i] = B[i] + prior->floor[i];
        }
        memset(totals, 0, size_t(K * D) * sizeof(double));
        for (int64_t i = 0; i < N; i++) {
            const int64_t k = z[i];
            const double* x = X + i * D;
            counts[k] += 1.0;
            for (int64_t j = 0; j < D; j++) totals[k * D + j] += x[j];
            sampler.add_scatter(x, means + k * D, scatter + (shared ? 0 : k * square));
        }
        for (int64_t k = 0; k < K; k++) {
            double* own = P + k * square;
            if (k > 0 && shared) {
                memcpy(own, P, size_t(square) * sizeof(double));
                half[k] = half[0];
            } else {
                half[k] = sampler.precision_factor(scatter + k * square, shared ? double(N) : counts[k], own);
            }
            if (!isfinite(half[k])) return NOT_FINITE;
            sampler.draw_mean(own, counts[k], totals + k * D, means + k * D);
        }
        if (learned) sampler.draw_scale_matrix(P, shared ? 1 : K, B);
        for (int step = 0; step < CONCENTRATION_STEPS; step++) {
            const double proposed = *alpha * exp(1.5 * normal(*random));
            const double gain =
                sampler.log_concentration(proposed, counts, N) - sampler.log_concentration(*alpha, counts, N);
            if (log(1.0 - random->uniform()) < gain) *alpha = proposed;
        }
        for (int64_t i = 0; i < N; i++) {
            counts[z[i]] -= 1.0;
            double top = -INFINITY, total = 0.0;
            for (int64_t k = 0; k < K; k++) {
                const double q = sampler.distance(X + i * D, means + k * D, P + k * square);
                odds[k] = log(counts[k] + *alpha) + half[k] - 0.5 * q;
                top = fmax(top, odds[k]);
            }
            for (int64_t k = 0; k < K; k++) total += odds[k] = exp(odds[k] - top);
            double u = random->uniform() * total;
            int64_t k = 0;
            for (; k < K - 1 && u >= odds[k]; k++) u -= odds[k];
            z[i] = k;
            counts[k] += 1.0;
        }
        int64_t n = 0;
        for (int64_t k = 0; k < K; k++) n += counts[k] > 0.0;
        filled[sweep / thin] = n;
        concentration[sweep / thin] = *alpha;
    }
    return DONE;
}
