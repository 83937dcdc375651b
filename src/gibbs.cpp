// Gibbs sampling of the assignments of rows to components, and of the components given them, with the weights integrated
// out; bayesgmm/bayes/gibbs.py says by which methods.
#include <math.h>
#include <string.h>

#include "api.hpp"
#include "linear.hpp"
#include "memory.hpp"
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

// Where a chain is; all of it changes.
struct GibbsState {
    int64_t* z;     // (N,) assignments
    double* means;  // (K, D)
    double* B;      // (D, D) scale matrix
    double* alpha;  // (1,) the unknown concentration
};

// What is kept of each draw; null where it is not wanted.
struct GibbsDraws {
    int64_t* filled;        // (n_draws,) number of components that hold rows
    double* concentration;  // (n_draws,)
    double* weights;        // (n_draws, K)
    double* means;          // (n_draws, K, D)
    double* factors;        // (n_draws, K, D, D) P with P P' the precision
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

double log_gamma_variate(double shape, const Random& random) {  // of small shapes, too, that would underflow
    return log(gamma_variate(shape + 1.0, random)) + log(1.0 - random.uniform()) / shape;
}

double chi_square(double df, const Random& random) { return 2.0 * gamma_variate(0.5 * df, random); }

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
};

// log(exp(a) + exp(b)) of many terms, one after the other.
struct LogSum {
    double top = -INFINITY, sum = 0.0;
    void add(double x) {
        if (x <= top) {
            sum += exp(x - top);
        } else {
            sum = sum * exp(top - x) + 1.0;
            top = x;
        }
    }
    double value() const { return top + log(sum); }
};

// One chain with all that a sweep needs. Densities are without their common factor (2 pi)^(-D / 2).
class Chain {
    const double* X;
    const int64_t N, K, D, square;
    const GibbsPrior& prior;
    const Random& random;
    const GibbsState& state;
    const bool sparse, relocates;
    bool alike;  // whether all concentrations are the same, so that labels do not matter
    Array<double> counts, totals, scatter, P, half, odds, concentration, weights, work;
    Array<double> log_density, density, highest;  // (N, K), the same over each row's highest, and that (N,)
    Array<double> mean, factor, start, column;    // of a component to be relocated: (D,), (D, D), (D, D), (N,)
    const Sampler sampler;

  public:
    Chain(const double* X, int64_t N, const GibbsPrior& prior, const Random& random, const GibbsState& state)
        : X(X), N(N), K(prior.K), D(prior.D), square(D * D), prior(prior), random(random), state(state),
          sparse(!prior.concentration), relocates(!sparse && K > 1), counts(K), totals(K * D), scatter(K * square),
          P(K * square), half(K), odds(K), concentration(K), weights(K), work(2 * square + D),
          log_density(relocates ? N * K : K), density(relocates ? N * K : K), highest(N), mean(D), factor(square),
          start(square), column(relocates ? N : 1), sampler{prior, random, work} {
        alike = true;
        for (int64_t k = 1; !sparse && k < K; k++) alike = alike && prior.concentration[k] == prior.concentration[0];
    }

    bool no_memory() const {
        return missing(counts, totals, scatter, P, half, odds, concentration, weights, work, log_density, density, highest,
                       mean, factor, start, column);
    }

    Status sweep() {
        if (!alike) swap_labels();
        gather();
        if (!draw_components()) return NOT_FINITE;
        if (prior.strength > 0.0) sampler.draw_scale_matrix(P, prior.shared ? 1 : K, state.B);
        if (sparse) draw_concentration();
        for (int64_t k = 0; k < K; k++) concentration[k] = sparse ? *state.alpha : prior.concentration[k];
        draw_assignments();
        if (!sparse) draw_weights();
        if (relocates) relocate();
        return DONE;
    }

    void keep(const GibbsDraws& draws, int64_t draw) const {
        if (draws.filled) {
            int64_t n = 0;
            for (int64_t k = 0; k < K; k++) n += counts[k] > 0.0;
            draws.filled[draw] = n;
        }
        if (draws.concentration) draws.concentration[draw] = *state.alpha;
        if (draws.weights) memcpy(draws.weights + draw * K, weights, size_t(K) * sizeof(double));
        if (draws.means) memcpy(draws.means + draw * K * D, state.means, size_t(K * D) * sizeof(double));
        if (draws.factors) memcpy(draws.factors + draw * K * square, P, size_t(K * square) * sizeof(double));
    }

  private:
    // Scatters before any row is seen.
    void start_scatter(double* W) const {
        for (int64_t i = 0; i < square; i++) W[i] = state.B[i] + prior.floor[i];
    }

    // Counts, sums and scatters, about the means as they are, of the components' rows.
    void gather() {
        for (int64_t k = 0; k < K; k++) {
            counts[k] = 0.0;
            start_scatter(scatter + k * square);
        }
        memset(totals, 0, size_t(K * D) * sizeof(double));
        for (int64_t i = 0; i < N; i++) {
            const int64_t k = state.z[i];
            const double* x = X + i * D;
            counts[k] += 1.0;
            for (int64_t j = 0; j < D; j++) totals[k * D + j] += x[j];
            sampler.add_scatter(x, state.means + k * D, scatter + (prior.shared ? 0 : k * square));
        }
    }

    // Precisions and means given the assignments; whether they are finite.
    bool draw_components() {
        for (int64_t k = 0; k < K; k++) {
            double* own = P + k * square;
            if (k > 0 && prior.shared) {
                memcpy(own, P, size_t(square) * sizeof(double));
                half[k] = half[0];
            } else {
                half[k] = sampler.precision_factor(scatter + k * square, prior.shared ? double(N) : counts[k], own);
            }
            if (!isfinite(half[k])) return false;
            sampler.draw_mean(own, counts[k], totals + k * D, state.means + k * D);
        }
        return true;
    }

    // Two components exchange their labels, accepted by the prior of the assignments alone.
    void swap_labels() {
        const int64_t b = random.below(K), other = random.below(K - 1), a = other + (other >= b);
        double at_a = prior.concentration[a], at_b = prior.concentration[b];
        for (int64_t i = 0; i < N; i++) {
            at_a += state.z[i] == a;
            at_b += state.z[i] == b;
        }
        const double more = prior.concentration[b] - prior.concentration[a];
        const double gain = lgamma(at_a + more) - lgamma(at_a) + lgamma(at_b - more) - lgamma(at_b);
        if (!(log(1.0 - random.uniform()) < gain)) return;
        for (int64_t i = 0; i < N; i++)
            if (state.z[i] == a || state.z[i] == b) state.z[i] = a + b - state.z[i];
        for (int64_t j = 0; j < D; j++) {
            const double x = state.means[a * D + j];
            state.means[a * D + j] = state.means[b * D + j];
            state.means[b * D + j] = x;
        }
    }

    void draw_concentration() {
        for (int step = 0; step < CONCENTRATION_STEPS; step++) {
            const double proposed = *state.alpha * exp(1.5 * normal(random));
            const double gain =
                sampler.log_concentration(proposed, counts, N) - sampler.log_concentration(*state.alpha, counts, N);
            if (log(1.0 - random.uniform()) < gain) *state.alpha = proposed;
        }
    }

    // One of the components, in proportion to their odds.
    int64_t pick() const {
        double total = 0.0;
        for (int64_t k = 0; k < K; k++) total += odds[k];
        double u = random.uniform() * total;
        int64_t k = 0;
        for (; k < K - 1 && u >= odds[k]; k++) u -= odds[k];
        return k;
    }

    // Row after row, given the others' assignments, the weights integrated out.
    void draw_assignments() {
        for (int64_t i = 0; i < N; i++) {
            double *values = log_density + (relocates ? i * K : 0), *relative = density + (relocates ? i * K : 0);
            double top = -INFINITY;
            for (int64_t k = 0; k < K; k++) {
                values[k] = half[k] - 0.5 * sampler.distance(X + i * D, state.means + k * D, P + k * square);
                top = fmax(top, values[k]);
            }
            highest[i] = top;
            counts[state.z[i]] -= 1.0;
            for (int64_t k = 0; k < K; k++) {
                relative[k] = exp(values[k] - top);
                odds[k] = (counts[k] + concentration[k]) * relative[k];
            }
            counts[state.z[i] = pick()] += 1.0;
        }
    }

    void draw_weights() {
        LogSum sum;
        for (int64_t k = 0; k < K; k++) sum.add(weights[k] = log_gamma_variate(counts[k] + concentration[k], random));
        for (int64_t k = 0; k < K; k++) weights[k] = exp(weights[k] - sum.value());
    }

    // A component b moves to a random row, and shares its weight anew with another one, a: Metropolis and Hastings, the
    // assignments integrated out and drawn anew where it does. The covariance proposed is from its prior given B, the
    // share of the weight from its own prior, and the mean from a normal of that covariance about the row: its density
    // is the mean of the component's density over the rows.
    void relocate() {
        const int64_t b = random.below(K), other = random.below(K - 1), a = other + (other >= b);
        const double both = weights[a] + weights[b], to_b = log_gamma_variate(concentration[b], random),
                     to_a = log_gamma_variate(concentration[a], random), weight = both / (1.0 + exp(to_a - to_b));
        const double* from = P + b * square;
        double new_half = half[b];
        if (!prior.shared) {
            start_scatter(start);
            new_half = sampler.precision_factor(start, 0.0, factor);
            if (!isfinite(new_half)) return;
            from = factor;
        }
        sampler.draw_about(X + random.below(N) * D, from, mean);
        double gain = sampler.log_prior_of_mean(mean) - sampler.log_prior_of_mean(state.means + b * D);
        LogSum there, here;
        for (int64_t i = 0; i < N; i++) {
            const double* relative = density + i * K;
            column[i] = new_half - 0.5 * sampler.distance(X + i * D, mean, from);
            double rest = 0.0;
            for (int64_t k = 0; k < K; k++)
                if (k != a && k != b) rest += weights[k] * relative[k];
            const double before = rest + weights[a] * relative[a] + weights[b] * relative[b];
            const double after = rest + (both - weight) * relative[a], more = column[i] - highest[i];
            gain += more < 700.0 ? log((after + weight * exp(more)) / before) : more + log(weight / before);
            there.add(column[i]);
            here.add(log_density[i * K + b]);
        }
        gain += here.value() - there.value();
        if (!(log(1.0 - random.uniform()) < gain)) return;
        weights[a] = both - weight;
        weights[b] = weight;
        half[b] = new_half;
        memcpy(state.means + b * D, mean, size_t(D) * sizeof(double));
        if (from == factor) memcpy(P + b * square, factor, size_t(square) * sizeof(double));
        for (int64_t i = 0; i < N; i++) log_density[i * K + b] = column[i];
        draw_assignments_given_weights();
    }

    void draw_assignments_given_weights() {
        for (int64_t k = 0; k < K; k++) counts[k] = 0.0;
        for (int64_t i = 0; i < N; i++) {
            const double* values = log_density + i * K;
            double top = -INFINITY;
            for (int64_t k = 0; k < K; k++) top = fmax(top, values[k]);
            for (int64_t k = 0; k < K; k++) odds[k] = weights[k] * exp(values[k] - top);
            counts[state.z[i] = pick()] += 1.0;
        }
    }
};

}  // namespace

API int64_t gmm_sizeof_gibbsprior() { return sizeof(GibbsPrior); }
API int64_t gmm_sizeof_gibbsstate() { return sizeof(GibbsState); }
API int64_t gmm_sizeof_gibbsdraws() { return sizeof(GibbsDraws); }

// One chain from a state, which changes: draws `start`, ..., `stop` - 1, each after `thin` sweeps.
API int64_t gmm_gibbs(const double* X, int64_t N, const GibbsPrior* prior, const Random* random, int64_t start, int64_t stop,
                      int64_t thin, const GibbsState* state, const GibbsDraws* draws) {
    Chain chain(X, N, *prior, *random, *state);
    if (chain.no_memory()) return NO_MEMORY;
    for (int64_t draw = start; draw < stop; draw++) {
        for (int64_t sweep = 0; sweep < thin; sweep++)
            if (chain.sweep() != DONE) return NOT_FINITE;
        chain.keep(*draws, draw);
    }
    return DONE;
}
