#include "density.hpp"

#include <math.h>
#include <string.h>

#include "likelihood.hpp"
#include "memory.hpp"
#include "patterns.hpp"

namespace {

constexpr double LOG_TWO_PI = 1.8378770664093454836;

int64_t filled_up(int64_t n) { return (n + 7) / 8 * 8; }  // a multiple of what any processor's vector holds

// Hands out parts of one piece of memory.
struct Parts {
    double* at;
    double* take(int64_t n) {
        double* part = at;
        at += n;
        return part;
    }
};

}  // namespace

Status Density::to_theta(const double* x, double* theta) const {
    const int64_t n = chart.n_dim(), m = filled_up(n);
    if (!factor) {
        memcpy(theta, x, size_t(n) * sizeof(double));
        return DONE;
    }
    Array<double> u(m, 0.0), product(m);
    if (missing(u, product)) return NO_MEMORY;
    memcpy(u, x, size_t(n) * sizeof(double));
    kernels().lower_times(factor, m, u, product);
    for (int64_t i = 0; i < n; i++) theta[i] = origin[i] + product[i];
    return DONE;
}

Status Density::evaluate(const double* x, double* gradient, double& value) const {
    const int64_t n = chart.n_dim(), m = filled_up(n);
    Status status;
    if (factor) {
        Array<double> theta(m), by_theta(m, 0.0), by_u(m);
        if (missing(theta, by_theta, by_u)) return NO_MEMORY;
        status = to_theta(x, theta);
        if (status == DONE) status = at_theta(theta, by_theta, value);
        kernels().lower_transposed_times(factor, m, by_theta, by_u);
        memcpy(gradient, by_u, size_t(n) * sizeof(double));
    } else {
        status = at_theta(x, gradient, value);
    }
    for (int64_t i = 0; i < n && status == DONE; i++)
        if (!isfinite(gradient[i])) status = NOT_FINITE;
    return status == DONE && !isfinite(value) ? NOT_FINITE : status;
}

Status Density::at_theta(const double* theta, double* gradient, double& value) const {
    const int64_t K = chart.K, D = chart.D, W = chart.n_weights, square = D * D;
    Array<double> memory(2 * W + K + 2 * K * D + (3 * K + 1) * square + D + chart.room() + chart.room_for_axes());
    if (missing(memory)) return NO_MEMORY;
    Parts parts{memory};
    double *log_weights = parts.take(W), *log_scale = parts.take(K), *offsets = parts.take(K * D);
    double *A = parts.take(K * square), *P = parts.take(K * square), *dP = parts.take(square), *z = parts.take(D);
    double *counts = parts.take(W), *first = parts.take(K * D), *scatter = parts.take(K * square);
    double *work = parts.take(chart.room()), *axes = parts.take(chart.room_for_axes());

    chart.log_weights(theta, log_weights);
    chart.find_axes(theta, axes);
    for (int64_t k = 0; k < K; k++) {
        chart.factor(theta, k, axes, A + k * square, P + k * square);
        log_scale[k] = log_weights[k] - 0.5 * double(D) * LOG_TWO_PI;
        for (int64_t j = 0; j < D; j++) {
            log_scale[k] += log(P[k * square + j * D + j]);
            offsets[k * D + j] = theta[chart.means() + k * D + j] - rows.center[j];
        }
    }
    const Mixture mixture{K, D, log_scale, offsets, P, diagonal, W > K ? log_weights[K] : 0.0};
    const Status status = likelihood(mixture, {counts, first, scatter}, value);
    if (status != DONE) return status;

    memset(gradient, 0, size_t(chart.n_dim()) * sizeof(double));
    value += log_prior_of_weights(log_weights, counts, gradient);
    value += chart.log_prior(theta, work, gradient);
    for (int64_t k = 0; k < K; k++) {
        const double *p = P + k * square, *mean = theta + chart.means() + k * D;
        double* by_mean = gradient + chart.means() + k * D;
        by_mean_and_precision(D, p, first + k * D, scatter + k * square, z, by_mean, dP);
        for (int64_t i = 0; i < D; i++) {
            double by_prior = 0.0;
            for (int64_t j = 0; j < D; j++) by_prior -= precision[i * D + j] * (mean[j] - location[j]);
            value += 0.5 * by_prior * (mean[i] - location[i]);
            by_mean[i] += by_prior;
        }
        chart.pull_back(theta, k, counts[k], dP, A + k * square, p, axes, work, gradient);
    }
    if (chart.frames) value += chart.pull_back_frames(axes, work, gradient);
    return DONE;
}

// Of the weights' log ratios: their Dirichlet density, Jacobian included, is prod_k w_k^concentration_k.
double Density::log_prior_of_weights(const double* log_weights, const double* counts, double* gradient) const {
    const int64_t W = chart.n_weights;
    double value = 0.0, total = 0.0;
    for (int64_t k = 0; k < W; k++) {
        value += concentration[k] * log_weights[k];
        total += concentration[k] + counts[k];
    }
    auto by_log_weight = [&](int64_t k) { return concentration[k] + counts[k] - total * exp(log_weights[k]); };
    const double last = by_log_weight(W - 1);
    for (int64_t k = 0; k < W - 1; k++) gradient[k] = by_log_weight(k) - last;
    return value;
}

Status Density::likelihood(const Mixture& mixture, const Statistics& statistics, double& value) const {
    Sums sums;
    const Status status = accumulate(rows, mixture, 0, N, true, statistics, sums);
    value = sums.log_likelihood;
    if (rows.noise) statistics.counts[chart.K] = sums.noise;
    return status == DONE && n_left_out ? leave_out(mixture, statistics, value) : status;
}

// Each row's share of the sum is a weight that its likelihood loses.
Status Density::leave_out(const Mixture& mixture, const Statistics& statistics, double& value) const {
    const int64_t M = n_left_out, K = chart.K, D = chart.D;
    Array<double> share(M, 0.0), counts(K), first(K * D), scatter(K * D * D);
    if (missing(share, counts, first, scatter)) return NO_MEMORY;
    Status status = log_prob(left_out, mixture, 0, n_left_out_read, share);
    if (status != DONE) return status;
    double largest = -INFINITY, total = 0.0;
    for (int64_t i = 0; i < M; i++) {
        share[i] = log_odds[i] - share[i];
        largest = fmax(largest, share[i]);
    }
    for (int64_t i = 0; i < M; i++) total += share[i] = exp(share[i] - largest);
    for (int64_t i = 0; i < M; i++) share[i] /= -total;
    value += largest + log(total);

    Rows lost = left_out;
    lost.weight = share;
    lost.n_weights = M;
    Sums sums;
    status = accumulate(lost, mixture, 0, n_left_out_read, true, {counts, first, scatter}, sums);
    if (lost.noise && status == DONE) statistics.counts[K] += sums.noise;
    for (int64_t i = 0; i < K && status == DONE; i++) statistics.counts[i] += counts[i];
    for (int64_t i = 0; i < K * D && status == DONE; i++) statistics.first[i] += first[i];
    for (int64_t i = 0; i < K * D * D && status == DONE; i++) statistics.scatter[i] += scatter[i];
    return status;
}

API int64_t gmm_sizeof_chart() { return sizeof(Chart); }
API int64_t gmm_sizeof_density() { return sizeof(Density); }

// As nutpie calls a density, at x (n,): 0, or positive where value or gradient is not finite.
API int gmm_log_density(uint64_t, const double* x, double* gradient, double* value, const Density* density) {
    return int(density->evaluate(x, gradient, *value));
}

// As nutpie calls what expands a draw: theta (n,) of x (n,).
API int gmm_to_theta(uint64_t, uint64_t, const double* x, double* theta, const Density* density) {
    return int(density->to_theta(x, theta));
}

// The mixtures of n points theta: weights (n, n_weights), means (n, K, D), covariances (n, K, D, D).
API int64_t gmm_mixtures(const Chart* chart, const double* thetas, int64_t n, double* weights, double* means,
                         double* covariances) {
    const int64_t K = chart->K, D = chart->D;
    Array<double> memory(3 * D * D + chart->room_for_axes());
    if (missing(memory)) return NO_MEMORY;
    double *A = memory, *P = A + D * D, *inverse = P + D * D, *axes = inverse + D * D;
    for (int64_t s = 0; s < n; s++, weights += chart->n_weights, means += K * D) {
        const double* theta = thetas + s * chart->n_dim();
        chart->log_weights(theta, weights);
        chart->find_axes(theta, axes);
        memcpy(means, theta + chart->means(), size_t(K * D) * sizeof(double));
        for (int64_t k = 0; k < chart->n_weights; k++) weights[k] = exp(weights[k]);
        for (int64_t k = 0; k < K; k++, covariances += D * D) {
            chart->factor(theta, k, axes, A, P);
            for (int64_t j = 0; j < D; j++)  // columns of the inverse of P
                for (int64_t i = D - 1; i >= 0; i--) {
                    double t = i == j ? 1.0 : 0.0;
                    for (int64_t m = i + 1; m <= j; m++) t -= P[i * D + m] * inverse[m * D + j];
                    inverse[i * D + j] = i <= j ? t / P[i * D + i] : 0.0;
                }
            for (int64_t i = 0; i < D; i++)
                for (int64_t j = 0; j < D; j++) {
                    double t = 0.0;
                    for (int64_t m = 0; m <= (i < j ? i : j); m++) t += inverse[m * D + i] * inverse[m * D + j];
                    covariances[i * D + j] = t;
                }
        }
    }
    return DONE;
}
