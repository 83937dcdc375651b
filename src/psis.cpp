// Pareto-smoothed importance sampling of many rows (Vehtari et al. 2024), with the numbers of ArviZ.
#include <math.h>

#include <algorithm>

#include "kernel.hpp"
#include "memory.hpp"

namespace {

const double NOT_A_NUMBER = __builtin_nan("");

// Mean of log(1 + c x_i): logs of products, taken before they leave the range of doubles; four chains at once.
double mean_log1p(double c, const double* x, int64_t n) {
    double total = 0.0, product[4] = {1.0, 1.0, 1.0, 1.0};
    for (int64_t i = 0; i < n; i++) {
        double& p = product[i % 4];
        p *= 1.0 + c * x[i];
        if (!(p > 1e-70 && p < 1e70)) {
            total += log(p);
            p = 1.0;
        }
    }
    return (total + log(product[0] * product[1] * product[2] * product[3])) / double(n);
}

struct Pareto {
    double k, scale;
};

int64_t n_candidates(int64_t n) { return 30 + int64_t(sqrt(double(n))); }

// Shape k and scale of sorted excesses x (n,), as Zhang & Stephens (2009), with k drawn towards 1/2 by ten of them; NaN
// where the first quartile is no more than the least. b and weight have room for the candidates.
Pareto generalised_pareto(const double* x, int64_t n, double* b, double* weight) {
    const double quartile = x[std::max(int64_t(double(n) / 4 + 0.5), int64_t(1)) - 1];
    if (!(quartile > x[0])) return {NOT_A_NUMBER, NOT_A_NUMBER};
    const int64_t m = n_candidates(n);
    double largest = -INFINITY, sum = 0.0, total = 0.0, mean = 0.0;
    for (int64_t j = 0; j < m; j++) {
        b[j] = (1.0 - sqrt(double(m) / (double(j) + 0.5))) / (3.0 * quartile) + 1.0 / x[n - 1];
        const double k = mean_log1p(-b[j], x, n);
        weight[j] = double(n) * (log(-b[j] / k) - k - 1.0);
        largest = weight[j] > largest ? weight[j] : largest;
    }
    for (int64_t j = 0; j < m; j++) sum += weight[j] = exp(weight[j] - largest);
    for (int64_t j = 0; j < m; j++)
        if (weight[j] / sum >= 10 * 2.220446049250313e-16) {
            total += weight[j];
            mean += weight[j] * b[j];
        }
    mean /= total;
    const double k = mean_log1p(-mean, x, n);
    return {(double(n) * k + 5.0) / (double(n) + 10.0), -k / mean};
}

}  // namespace

// Of rows [start, stop): log predictive densities leaving each out, Pareto k and effective numbers of parameters, into the
// three lines of out (3, N). log_lik (N, S) is nats under each of S draws, n_tail < S how many ratios, at least one, are
// smoothed.
API int64_t gmm_psis(const double* log_lik, int64_t N, int64_t S, int64_t n_tail, int64_t start, int64_t stop,
                     double* out) {
    const int64_t room = (S + 63) / 64 * 64, m = n_candidates(n_tail);
    Array<double> rest(room), sorted(S), tail(n_tail), excess(n_tail), b(m), weight(m);
    if (missing(rest, sorted, tail, excess, b, weight)) return NO_MEMORY;
    const Kernels& kernel = kernels();
    for (int64_t row = start; row < stop; row++) {
        const double* x = log_lik + row * S;
        double low = x[0], high = x[0];
        for (int64_t s = 0; s < S; s++) {
            low = x[s] < low ? x[s] : low;
            high = x[s] > high ? x[s] : high;
            sorted[s] = x[s];
        }
        for (int64_t s = 0; s < S; s++) rest[s] = x[s] - high;
        const double mean = kernel.sum_exp(rest, S) / double(S);

        // Ratios exp(low - x) are at most one; the tail are the n_tail largest, the cutoff the largest of the others.
        std::nth_element(sorted + 0, sorted + n_tail, sorted + S, [](double p, double q) { return p < q; });
        const double cutoff = low - sorted[n_tail];
        for (int64_t i = 0; i < n_tail; i++) tail[i] = low - sorted[i];
        for (int64_t s = n_tail; s < S; s++) rest[s - n_tail] = low - sorted[s];
        double total = kernel.sum_exp(rest, S - n_tail);
        std::sort(tail + 0, tail + n_tail, [](double p, double q) { return p < q; });

        Pareto fit{0.0, 0.0};
        const double least = exp(cutoff), most = tail[n_tail - 1];
        const bool varied = most - tail[0] >= 2.2250738585072014e-308;  // else there is no tail to fit
        if (varied) {
            for (int64_t i = 0; i < n_tail; i++) excess[i] = exp(tail[i]) - least;
            fit = generalised_pareto(excess, n_tail, b, weight);
        }
        double density = double(S - n_tail);  // of a draw that is not smoothed, ratio times density is exp(low)
        for (int64_t i = 0; i < n_tail; i++) {
            double smoothed = tail[i];
            if (varied && isfinite(fit.k)) {
                const double p = -log1p(-(double(i) + 0.5) / double(n_tail));
                const double beyond = fit.scale * (fit.k == 0.0 ? p : expm1(fit.k * p) / fit.k);
                smoothed = fmin(log(least + beyond), most);
            }
            total += exp(smoothed);
            density += exp(smoothed - tail[i]);
        }
        out[row] = low + log(density) - log(total);
        out[N + row] = fit.k;
        out[2 * N + row] = high + log(mean) - out[row];
    }
    return DONE;
}
