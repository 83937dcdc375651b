// Gibbs sampling of the assignments of rows to components, and of the components given them, with the weights integrated
// out, and of true values where some are missing or have errors; bayesgmm/bayes/gibbs.py says by which methods.
#include <math.h>
#include <string.h>

#include "api.hpp"
#include "conjugate.hpp"
#include "measured.hpp"
#include "memory.hpp"

// Where a chain is; all of it changes.
struct GibbsState {
    int64_t* z;     // (N,) assignments
    double* X;      // (N, D) true values; where all are known they do not change
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

// What a component's rows say of it: their number, sum, and scatter about their mean, that of the prior included.
struct Moments {
    double n;
    Array<double> total, scatter;
    Moments(int64_t D) : total(D), scatter(D * D) {}
};

// By which two components are proposed: a position among their rows, and how many rows near that are the second's.
struct Guide {
    int64_t row, m;
};

// The m-th smallest of n values, which are put into another order.
double smallest(double* x, int64_t n, int64_t m) {
    for (int64_t low = 0, high = n - 1; low < high;) {
        const double pivot = x[(low + high) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (x[i] < pivot) i++;
            while (x[j] > pivot) j--;
            if (i <= j) {
                const double swapped = x[i];
                x[i++] = x[j];
                x[j--] = swapped;
            }
        }
        if (m - 1 <= j)
            high = j;
        else if (m - 1 >= i)
            low = i;
        else
            break;
    }
    return x[m - 1];
}

// Two components: the share of the second in their weight, and their means and precisions' factors.
struct Pair {
    double share;
    double half[2];
    Array<double> mean[2], P[2], values[2];  // (D,), (D, D); log densities (N,)
    Pair(int64_t N, int64_t D)
        : mean{Array<double>(D), Array<double>(D)}, P{Array<double>(D * D), Array<double>(D * D)},
          values{Array<double>(N), Array<double>(N)} {}
    bool no_memory() const { return missing(mean[0], mean[1], P[0], P[1], values[0], values[1]); }
};

// One chain with all that a sweep needs. Densities are without their common factor (2 pi)^(-D / 2).
class Chain {
    double* const X;
    const int64_t N, K, D, square;
    const GibbsPrior& prior;
    const Random& random;
    const GibbsState& state;
    const bool sparse, relocates;
    bool alike;  // whether all concentrations are the same, so that labels do not matter
    Array<double> counts, totals, scatter, P, half, odds, concentration, weights, work;
    Array<double> log_density, density, highest;  // (N, K), the same over each row's highest, and that (N,)
    Array<double> mean, factor, start, column;    // of a component to be relocated: (D,), (D, D), (D, D), (N,)
    Array<double> units, gaps, order;  // (D,) of the features' distances; (N,) distances from a row, and in order
    Array<int64_t> members, near;      // (N,) rows of two components; whether each is among the nearest to a guide's
    Moments moments[2];
    Pair now, then;
    const Sampler sampler;

  public:
    Chain(int64_t N, const GibbsPrior& prior, const Random& random, const GibbsState& state)
        : X(state.X), N(N), K(prior.K), D(prior.D), square(D * D), prior(prior), random(random), state(state),
          sparse(!prior.concentration), relocates(!sparse && K > 1), counts(K), totals(K * D), scatter(K * square),
          P(K * square), half(K), odds(K), concentration(K), weights(K), work(2 * square + D),
          log_density(relocates ? N * K : K), density(relocates ? N * K : K), highest(N), mean(D), factor(square),
          start(square), column(relocates ? N : 1), units(D), gaps(relocates ? N : 1), order(relocates ? N : 1),
          members(relocates ? N : 1), near(relocates ? N : 1), moments{D, D}, now(relocates ? N : 1, D), then(relocates ? N : 1, D),
          sampler{prior, random, work} {
        alike = true;
        for (int64_t k = 1; !sparse && k < K; k++) alike = alike && prior.concentration[k] == prior.concentration[0];
    }

    bool no_memory() const {
        return missing(counts, totals, scatter, P, half, odds, concentration, weights, work, log_density, density, highest,
                       mean, factor, start, column, units, gaps, order, members, near) ||
               missing(moments[0].total, moments[0].scatter, moments[1].total, moments[1].scatter) || now.no_memory() ||
               then.no_memory();
    }

    // Units in which the features of rows are comparable.
    void measure() {
        for (int64_t j = 0; j < D; j++) {
            double mean = 0.0, square = 0.0;
            for (int64_t i = 0; i < N; i++) mean += X[i * D + j] / double(N);
            for (int64_t i = 0; i < N; i++) square += (X[i * D + j] - mean) * (X[i * D + j] - mean);
            units[j] = square > 0.0 ? double(N) / square : 0.0;
        }
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
        if (relocates) {
            relocate();
            divide();
        }
        return DONE;
    }

    // Rows that are not wholly known, all of them, are assigned by what was measured of them, and given true values.
    void draw_values(const Patterns& patterns, Measured& rows) {
        if (sparse) draw_weights();
        rows.set_components(P);
        for (int64_t k = 0; k < K; k++) counts[k] = 0.0;
        for (int64_t group = 0; group < patterns.n; group++) {
            rows.set_group(group);
            for (int64_t at = patterns.start[group]; at < patterns.start[group + 1]; at++) {
                const int64_t i = patterns.order[at];
                double top = -INFINITY;
                for (int64_t k = 0; k < K; k++)
                    top = fmax(top, odds[k] = log(weights[k]) + rows.log_density(i, k, state.means + k * D));
                for (int64_t k = 0; k < K; k++) odds[k] = exp(odds[k] - top);
                const int64_t k = state.z[i] = pick();
                counts[k] += 1.0;
                rows.draw(i, k, state.means + k * D, X + i * D);
            }
        }
        measure();
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

    // The n rows of two components, the first and the second, are divided between them anew: Metropolis and Hastings, the
    // assignments of these rows integrated out and drawn anew where they are. Components are proposed by a guide.
    void divide() {
        const int64_t second = random.below(K), other = random.below(K - 1), first = other + (other >= second);
        const int64_t which[2] = {first, second};
        int64_t n = 0;
        for (int64_t i = 0; i < N; i++)
            if (state.z[i] == first || state.z[i] == second) members[n++] = i;
        if (n < 2) return;
        const double both = weights[first] + weights[second];
        now.share = weights[second] / both;
        for (int c = 0; c < 2; c++) {
            memcpy(now.mean[c], state.means + which[c] * D, size_t(D) * sizeof(double));
            memcpy(now.P[c], P + which[c] * square, size_t(square) * sizeof(double));
            now.half[c] = half[which[c]];
            for (int64_t i = 0; i < n; i++) now.values[c][i] = log_density[members[i] * K + which[c]];
        }
        start_scatter(start);
        const Guide there = any_guide(n);
        gather_nearest(there, n);
        if (!propose(which, n)) return;
        double gain = score(then, which, there, n);
        const Guide back = guide_to(now, n);
        gather_nearest(back, n);
        gain -= score(now, which, back, n);
        if (!(log(1.0 - random.uniform()) < gain)) return;
        weights[first] = both * (1.0 - then.share);
        weights[second] = both * then.share;
        for (int c = 0; c < 2; c++) {
            memcpy(state.means + which[c] * D, then.mean[c], size_t(D) * sizeof(double));
            memcpy(P + which[c] * square, then.P[c], size_t(square) * sizeof(double));
            half[which[c]] = then.half[c];
        }
        counts[first] = counts[second] = 0.0;
        for (int64_t i = 0; i < n; i++) {
            const double odds = (1.0 - then.share) / then.share * exp(then.values[0][i] - then.values[1][i]);
            counts[state.z[members[i]] = random.uniform() * (1.0 + odds) < 1.0 ? second : first] += 1.0;
        }
    }

    // Any row, and small and large numbers as often: m with a probability in proportion to 1 / m + 1 / (n - m).
    Guide any_guide(int64_t n) const {
        double harmonic = 0.0;
        for (int64_t m = 1; m < n; m++) harmonic += 1.0 / double(m);
        double u = random.uniform() * harmonic;
        int64_t m = 1;
        for (; m < n - 1 && u >= 1.0 / double(m); m++) u -= 1.0 / double(m);
        return {random.below(n), random.uniform() < 0.5 ? m : n - m};
    }

    // A row in proportion to the second component's density, and a number from a binomial of its share.
    Guide guide_to(const Pair& pair, int64_t n) const {
        LogSum sum;
        for (int64_t i = 0; i < n; i++) sum.add(pair.values[1][i]);
        double u = random.uniform();
        int64_t row = 0, m = 1;
        for (; row < n - 1; row++)
            if ((u -= exp(pair.values[1][row] - sum.value())) < 0.0) break;
        for (int64_t i = 0; i < n - 2; i++) m += random.uniform() < pair.share;
        return {row, m};
    }

    // What the m rows nearest to the guide's say of the second component, and the others of the first.
    void gather_nearest(const Guide& guide, int64_t n) {
        const double* x = X + members[guide.row] * D;
        for (int64_t i = 0; i < n; i++) {
            gaps[i] = 0.0;
            for (int64_t j = 0; j < D; j++) {
                const double shift = X[members[i] * D + j] - x[j];
                gaps[i] += units[j] * shift * shift;
            }
            order[i] = gaps[i];
        }
        const double farthest = smallest(order, n, guide.m);
        int64_t ties = guide.m;
        for (int64_t i = 0; i < n; i++) ties -= gaps[i] < farthest;
        for (int c = 0; c < 2; c++) {
            moments[c].n = 0.0;
            memset(moments[c].total, 0, size_t(D) * sizeof(double));
            memcpy(moments[c].scatter, start, size_t(square) * sizeof(double));
        }
        for (int64_t i = 0; i < n; i++) {
            near[i] = gaps[i] < farthest || (gaps[i] == farthest && ties-- > 0);
            Moments& own = moments[near[i]];
            own.n += 1.0;
            for (int64_t j = 0; j < D; j++) own.total[j] += X[members[i] * D + j];
        }
        for (int c = 0; c < 2; c++) {
            for (int64_t j = 0; j < D; j++) mean[j] = moments[c].total[j] / moments[c].n;
            for (int64_t i = 0; i < n; i++)
                if (near[i] == c) sampler.add_scatter(X + members[i] * D, mean, moments[c].scatter);
        }
    }

    // The pair that comes then, drawn given the moments; whether it is finite.
    bool propose(const int64_t* which, int64_t n) {
        const double second = log_gamma_variate(concentration[which[1]] + moments[1].n, random),
                     first = log_gamma_variate(concentration[which[0]] + moments[0].n, random);
        then.share = 1.0 / (1.0 + exp(first - second));
        for (int c = 0; c < 2; c++) {
            if (prior.shared) {
                memcpy(then.P[c], now.P[c], size_t(square) * sizeof(double));
                then.half[c] = now.half[c];
            } else {
                memcpy(factor, moments[c].scatter, size_t(square) * sizeof(double));
                then.half[c] = sampler.precision_factor(factor, moments[c].n - 1.0, then.P[c]);
            }
            if (!isfinite(then.half[c])) return false;
            sampler.draw_mean(then.P[c], moments[c].n, moments[c].total, then.mean[c]);
            for (int64_t i = 0; i < n; i++)
                then.values[c][i] = then.half[c] - 0.5 * sampler.distance(X + members[i] * D, then.mean[c], then.P[c]);
        }
        return true;
    }

    // Log posterior density of a pair, less that of proposing it by this guide, plus that of guide_to giving the guide; up
    // to what all pairs have in common.
    double score(const Pair& pair, const int64_t* which, const Guide& guide, int64_t n) const {
        const double N = double(n), m = double(guide.m), log_second = log(pair.share), log_first = log1p(-pair.share);
        const double a = concentration[which[0]], b = concentration[which[1]];
        LogSum sum;
        double value = (b - 1.0) * log_second + (a - 1.0) * log_first;
        for (int64_t i = 0; i < n; i++) {
            const double x = log_first + pair.values[0][i], y = log_second + pair.values[1][i];
            value += fmax(x, y) + log1p(exp(-fabs(x - y)));
            sum.add(pair.values[1][i]);
        }
        value -= (b + m - 1.0) * log_second + (a + N - m - 1.0) * log_first - lgamma(b + m) - lgamma(a + N - m);
        for (int c = 0; c < 2; c++) {
            value += sampler.log_prior_of_mean(pair.mean[c]);
            value -= sampler.log_density_of_mean(pair.P[c], moments[c].n, moments[c].total, pair.mean[c]);
            if (prior.shared) continue;
            value += sampler.log_density_of_precision(pair.P[c], pair.half[c], start, 0.0);
            value -= sampler.log_density_of_precision(pair.P[c], pair.half[c], moments[c].scatter, moments[c].n - 1.0);
        }
        value -= log(1.0 / m + 1.0 / (N - m));
        value += pair.values[1][guide.row] - sum.value();
        return value + (m - 1.0) * log_second + (N - 1.0 - m) * log_first - lgamma(m) - lgamma(N - m);
    }
};

}  // namespace

API int64_t gmm_sizeof_gibbsprior() { return sizeof(GibbsPrior); }
API int64_t gmm_sizeof_gibbsstate() { return sizeof(GibbsState); }
API int64_t gmm_sizeof_gibbsdraws() { return sizeof(GibbsDraws); }

// One chain from a state, which changes: draws `start`, ..., `stop` - 1, each after `thin` sweeps. Y (N, D) is what was
// measured, with patterns, each row in one, or without where all values are known and exact.
API int64_t gmm_gibbs(const double* Y, int64_t N, const Patterns* patterns, const GibbsPrior* prior, const Random* random,
                      int64_t start, int64_t stop, int64_t thin, const GibbsState* state, const GibbsDraws* draws) {
    Chain chain(N, *prior, *random, *state);
    const Patterns none{prior->D, 0, 0, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, 0};
    Measured rows(Y, patterns ? *patterns : none, prior->K, *random);
    if (chain.no_memory() || rows.no_memory()) return NO_MEMORY;
    chain.measure();
    for (int64_t draw = start; draw < stop; draw++) {
        for (int64_t sweep = 0; sweep < thin; sweep++) {
            if (chain.sweep() != DONE) return NOT_FINITE;
            if (patterns) chain.draw_values(*patterns, rows);
        }
        chain.keep(*draws, draw);
    }
    return DONE;
}
