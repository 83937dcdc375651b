// Starts for EM: seeds by k-means++, Ward's clustering, and the moments of labelled rows.
#include <math.h>
#include <string.h>

#include "api.hpp"
#include "memory.hpp"

namespace {

double squared_distance(const double* x, const double* y, int64_t D) {
    double s = 0.0;
    for (int64_t j = 0; j < D; j++) s += (x[j] - y[j]) * (x[j] - y[j]);
    return s;
}

// The row where the running total of `share` (N,) passes a part of the total; any row where all is zero or infinite.
int64_t drawn_row(const double* share, double total, double uniform, int64_t N) {
    int64_t row = int64_t(uniform * double(N));
    if (!(total > 0.0 && total < INFINITY)) return row < N - 1 ? row : N - 1;
    double target = uniform * total;
    for (row = 0; row < N - 1 && target > share[row]; row++) target -= share[row];
    return row;
}

}  // namespace

// Labels (N,) of the rows of Z (N, D) by nearest seed, those that are `seeded` (K,) first; the others are drawn by
// k-means++ with the uniforms (K,) and written into seeds (K, D).
API int64_t gmm_plus_plus(const double* Z, int64_t N, int64_t D, int64_t K, double* seeds, const uint8_t* seeded,
                          const double* uniforms, int64_t* labels) {
    Array<double> nearest(N, INFINITY);
    if (missing(nearest)) return NO_MEMORY;
    memset(labels, 0, size_t(N) * 8);
    double total = INFINITY;
    for (int drawn = 0; drawn < 2; drawn++)
        for (int64_t k = 0; k < K; k++) {
            if ((drawn > 0) == (seeded[k] > 0)) continue;
            double* seed = seeds + k * D;
            if (drawn) memcpy(seed, Z + drawn_row(nearest, total, uniforms[k], N) * D, size_t(D) * 8);
            total = 0.0;
            for (int64_t i = 0; i < N; i++) {
                const double distance = squared_distance(Z + i * D, seed, D);
                if (distance < nearest[i]) {
                    nearest[i] = distance;
                    labels[i] = k;
                }
                total += nearest[i];
            }
        }
    return DONE;
}

// Merges (N - 1, 2) of Ward's clustering (1963) of the rows of Z (N, D) and their heights (N - 1,), by nearest-neighbour
// chains (Murtagh 1983). A cluster is named by its least row; the merges come in no order of height.
API int64_t gmm_ward(const double* Z, int64_t N, int64_t D, int64_t* merges, double* heights) {
    Array<double> centers(N * D), sizes(N, 1.0);
    Array<int64_t> alive(N), chain(N);  // the clusters there still are, the first `n_alive`
    if (missing(centers, sizes, alive, chain)) return NO_MEMORY;
    memcpy(centers, Z, size_t(N * D) * 8);
    for (int64_t i = 0; i < N; i++) alive[i] = i;
    auto height = [&](int64_t a, int64_t b) {
        return squared_distance(centers + a * D, centers + b * D, D) * (sizes[a] * sizes[b] / (sizes[a] + sizes[b]));
    };
    int64_t length = 0;
    for (int64_t merge = 0; merge < N - 1; merge++) {
        const int64_t n_alive = N - merge;
        if (length == 0) chain[length++] = alive[0];
        int64_t a, best;
        double nearest;
        while (true) {
            a = chain[length - 1];
            best = length > 1 ? chain[length - 2] : -1;  // ties go back along the chain, so that it ends
            nearest = best < 0 ? INFINITY : height(a, best);
            for (int64_t i = 0; i < n_alive; i++) {
                const int64_t b = alive[i];
                const double h = height(a, b);
                if (h < nearest && b != a) {
                    nearest = h;
                    best = b;
                }
            }
            if (best < 0) best = alive[alive[0] == a];  // all are infinitely far: any other
            if (length > 1 && best == chain[length - 2]) break;
            chain[length++] = best;
        }
        length -= 2;
        const int64_t keep = a < best ? a : best, gone = a < best ? best : a;
        merges[2 * merge] = keep;
        merges[2 * merge + 1] = gone;
        heights[merge] = nearest;
        const double total = sizes[a] + sizes[best];
        for (int64_t j = 0; j < D; j++)
            centers[keep * D + j] = (sizes[a] * centers[a * D + j] + sizes[best] * centers[best * D + j]) / total;
        sizes[keep] = total;
        for (int64_t i = 0, to = 0; i < n_alive; i++)
            if (alive[i] != gone) alive[to++] = alive[i];
    }
    return DONE;
}

// Moments z (K + K D + K D D,): counts, means and covariances of the labelled rows of X (N, D), each covariance drawn
// towards the pooled one by D + 1 rows, which keeps a cluster of few rows from starting singular.
API int64_t gmm_moments_of_labels(const double* X, const int64_t* labels, int64_t N, int64_t D, int64_t K, double* z) {
    double *counts = z, *means = z + K, *S = z + K + K * D;
    memset(z, 0, size_t(K + K * D + K * D * D) * 8);
    for (int64_t i = 0; i < N; i++) {
        counts[labels[i]] += 1.0;
        for (int64_t j = 0; j < D; j++) means[labels[i] * D + j] += X[i * D + j];
    }
    for (int64_t k = 0; k < K; k++)
        for (int64_t j = 0; j < D; j++) means[k * D + j] /= fmax(counts[k], 1.0);
    for (int64_t i = 0; i < N; i++) {
        const double *x = X + i * D, *mean = means + labels[i] * D;
        double* W = S + labels[i] * D * D;
        for (int64_t a = 0; a < D; a++)
            for (int64_t b = 0; b < D; b++) W[a * D + b] += (x[a] - mean[a]) * (x[b] - mean[b]);
    }
    for (int64_t ab = 0; ab < D * D; ab++) {
        double pooled = 0.0;
        for (int64_t k = 0; k < K; k++) pooled += S[k * D * D + ab] / double(N);
        for (int64_t k = 0; k < K; k++) {
            double& s = S[k * D * D + ab];
            s = (s + double(D + 1) * pooled) / (counts[k] + double(D + 1));
        }
    }
    for (int64_t k = 0; k < K; k++) counts[k] = fmax(counts[k], 0.5);
    return DONE;
}
