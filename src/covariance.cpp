#include "covariance.hpp"

#include <math.h>
#include <string.h>

#include "api.hpp"

namespace {

typedef double pair __attribute__((vector_size(16)));

pair load(const double* x) {
    pair p;
    memcpy(&p, x, sizeof p);
    return p;
}

}  // namespace

double dot(const double* x, const double* y, int64_t n) {
    double total = 0.0;
    int64_t i = 0;
    if (n >= 8) {
        pair s[4] = {};
        for (; i + 8 <= n; i += 8)
            for (int64_t j = 0; j < 4; j++) s[j] += load(x + i + 2 * j) * load(y + i + 2 * j);
        const pair sum = (s[0] + s[1]) + (s[2] + s[3]);
        total = sum[0] + sum[1];
    }
    for (; i < n; i++) total += x[i] * y[i];
    return total;
}

namespace {

// Replace the rows of values (K, M) by their sum, where a factor is shared.
void pool(double* values, int64_t K, int64_t M, bool shared) {
    for (int64_t m = 0; shared && m < M; m++) {
        double total = 0.0;
        for (int64_t k = 0; k < K; k++) total += values[k * M + m];
        for (int64_t k = 0; k < K; k++) values[k * M + m] = total;
    }
}

void identity(double* Q, int64_t D) {
    memset(Q, 0, size_t(D * D) * 8);
    for (int64_t j = 0; j < D; j++) Q[j * D + j] = 1.0;
}

// u, v become cos u + sin v, cos v - sin u.
void turn(double& u, double& v, double cos, double sin) {
    const double x = u;
    u = cos * x + sin * v;
    v = cos * v - sin * x;
}

// One sweep of plane rotations of Q (D, D) and T (K, D, D) = Q' W_k Q towards the least sum_k sum_j c_kj T_kjj. Each
// plane's angle t is exact: the objective in it is A cos 2t + B sin 2t + constant (Flury & Gautschi 1986). With K = 1 and
// increasing c this is Jacobi's diagonalisation, largest eigenvalue first. Returns the largest |sin t|.
double rotate(double* Q, double* T, const double* c, int64_t K, int64_t D) {
    double largest = 0.0;
    for (int64_t i = 0; i < D - 1; i++)
        for (int64_t j = i + 1; j < D; j++) {
            double A = 0.0, B = 0.0;
            for (int64_t k = 0; k < K; k++) {
                const double *Tk = T + k * D * D, lean = c[k * D + i] - c[k * D + j];
                A += 0.5 * lean * (Tk[i * D + i] - Tk[j * D + j]);
                B += lean * Tk[i * D + j];
            }
            if (A == 0.0 && B == 0.0) continue;
            const double t = 0.5 * atan2(-B, -A), cosine = cos(t), sine = sin(t);
            largest = fmax(largest, fabs(sine));
            for (int64_t m = 0; m < D; m++) turn(Q[m * D + i], Q[m * D + j], cosine, sine);
            for (int64_t k = 0; k < K; k++) {
                double* Tk = T + k * D * D;
                for (int64_t m = 0; m < D; m++) turn(Tk[m * D + i], Tk[m * D + j], cosine, sine);
                for (int64_t m = 0; m < D; m++) turn(Tk[i * D + m], Tk[j * D + m], cosine, sine);
            }
        }
    return largest;
}

// Rotate Q = I and T (D, D) to T's eigenvectors, largest eigenvalue first.
void diagonalise(double* Q, double* T, int64_t D, double* order) {
    for (int64_t j = 0; j < D; j++) order[j] = double(j);
    for (int sweep = 0; sweep < 60; sweep++)
        if (!(rotate(Q, T, order, 1, D) > 1e-15)) break;
}

// T = Q' W Q, all (D, D).
void turned(const double* Q, const double* W, int64_t D, double* T, double* product) {
    memset(product, 0, size_t(D * D) * 8);
    memset(T, 0, size_t(D * D) * 8);
    for (int64_t a = 0; a < D; a++)
        for (int64_t b = 0; b < D; b++)
            for (int64_t j = 0; j < D; j++) product[a * D + j] += W[a * D + b] * Q[b * D + j];
    for (int64_t a = 0; a < D; a++)
        for (int64_t i = 0; i < D; i++)
            for (int64_t j = 0; j < D; j++) T[i * D + j] += Q[a * D + i] * product[a * D + j];
}

// a (K, D) = the diagonals of T_k / lam_k, summed over the components where shared, scaled to product one.
void fill_shapes(const double* T, const double* lam, int64_t K, int64_t D, bool shared, double* a) {
    for (int64_t k = 0; k < K; k++)
        for (int64_t j = 0; j < D; j++) a[k * D + j] = T[(k * D + j) * D + j] / lam[k];
    pool(a, K, D, shared);
    for (int64_t k = 0; k < K; k++) {
        double mean = 0.0;
        for (int64_t j = 0; j < D; j++) mean += log(a[k * D + j]) / double(D);
        for (int64_t j = 0; j < D; j++) a[k * D + j] /= exp(mean);
    }
}

// lam (K,) = the traces of T_k diag(a_k)^-1, summed over the components where shared, over n D.
void fill_volumes(const double* T, const double* a, const double* n, int64_t K, int64_t D, bool shared, double* lam) {
    for (int64_t k = 0; k < K; k++) {
        lam[k] = 0.0;
        for (int64_t j = 0; j < D; j++) lam[k] += T[(k * D + j) * D + j] / (a[k * D + j] * double(D));
    }
    pool(lam, K, 1, shared);
    for (int64_t k = 0; k < K; k++) lam[k] /= n[k];
}

// Models whose factors are all shared alike: the scatter itself, pooled or not.
void pooled_covariances(const CovarianceModel& model, int64_t K, int64_t D, const double* n, const double* W,
                        double* covariances) {
    memcpy(covariances, W, size_t(K * D * D) * 8);
    pool(covariances, K, D * D, model.volume == EQUAL);
    for (int64_t k = 0; k < K; k++)
        for (int64_t i = 0; i < D; i++)
            for (int64_t j = 0; j < D; j++) {
                double& s = covariances[(k * D + i) * D + j];
                s = i == j || model.orientation != NONE ? s / n[k] : 0.0;
            }
}

}  // namespace

double precision_cholesky(const double* covariance, int64_t D, double* P) {
    double smallest = 1.0;
    // Cholesky L of the covariance into P's strict lower triangle and diagonal, row by row.
    for (int64_t i = 0; i < D; i++) {
        for (int64_t j = 0; j <= i; j++) {
            const double s = covariance[i * D + j] - dot(P + i * D, P + j * D, j);
            if (i > j) {
                P[i * D + j] = s / P[j * D + j];
                continue;
            }
            if (!(s > 0.0 && covariance[i * D + i] > 0.0)) return 0.0;  // also NaN
            smallest = fmin(smallest, s / covariance[i * D + i]);
            P[i * D + i] = sqrt(s);
        }
    }
    // P = L^-T: column i of P is row i of L^-1, written over the transposed place.
    for (int64_t i = 0; i < D; i++) P[i * D + i] = 1.0 / P[i * D + i];
    for (int64_t i = 0; i < D; i++)
        for (int64_t j = i - 1; j >= 0; j--) P[j * D + i] = -dot(P + i * D + j, P + j * D + j, i - j) * P[i * D + i];
    for (int64_t i = 0; i < D; i++) memset(P + i * D, 0, size_t(i) * 8);
    return smallest;
}

void constrained_covariances(const CovarianceModel& model, int64_t K, int64_t D, const double* counts, const double* W,
                             bool warm, double* covariances, const CovarianceRoom& room) {
    const auto& [n, lam, previous, a, c, Q, T, total, product, order] = room;
    const bool one_volume = model.volume == EQUAL, one_shape = model.shape == EQUAL;
    const bool one_orientation = model.orientation == EQUAL;
    memcpy(n, counts, size_t(K) * 8);
    pool(n, K, 1, one_volume);
    if (model.volume == model.shape && (model.orientation == model.shape || model.orientation == NONE))
        return pooled_covariances(model, K, D, n, W, covariances);

    memcpy(T, W, size_t(K * D * D) * 8);
    for (int64_t k = 0; k < K; k++) {
        lam[k] = 1.0;
        for (int64_t j = 0; j < D; j++) a[k * D + j] = 1.0;
        identity(Q + k * D * D, D);
        if (model.orientation == VARYING) diagonalise(Q + k * D * D, T + k * D * D, D, order);
    }
    if (one_orientation) {
        memset(total, 0, size_t(D * D) * 8);
        for (int64_t k = 0; k < K; k++)
            for (int64_t i = 0; i < D * D; i++) total[i] += (warm ? covariances : W)[k * D * D + i];
        diagonalise(Q, total, D, order);
        for (int64_t k = 0; k < K; k++) turned(Q, W + k * D * D, D, T + k * D * D, product);
        fill_shapes(T, lam, K, D, one_shape, a);
        fill_volumes(T, a, n, K, D, one_volume, lam);
    }
    // Orientation, shape and volume in turn until they stop changing, which takes one pass unless the volumes or the axes
    // depend on the rest.
    const int passes = one_orientation || (model.volume == VARYING && one_shape) ? 1000 : 1;
    for (int pass = 0; pass < passes; pass++) {
        double moved = 0.0, changed = 0.0;
        if (one_orientation) {
            for (int64_t k = 0; k < K; k++)
                for (int64_t j = 0; j < D; j++) c[k * D + j] = 1.0 / (lam[k] * a[k * D + j]);
            moved = rotate(Q, T, c, K, D);
        }
        if (model.shape != NONE) fill_shapes(T, lam, K, D, one_shape, a);
        memcpy(previous, lam, size_t(K) * 8);
        fill_volumes(T, a, n, K, D, one_volume, lam);
        for (int64_t k = 0; k < K; k++) changed = fmax(changed, fabs(lam[k] - previous[k]) / lam[k]);
        if (!(moved > 1e-9 || changed > 1e-12)) break;
    }
    for (int64_t k = 0; k < K; k++) {
        const double* axes = Q + (one_orientation ? 0 : k * D * D);
        for (int64_t i = 0; i < D; i++)
            for (int64_t j = 0; j <= i; j++) {
                double s = 0.0;
                for (int64_t m = 0; m < D; m++) s += axes[i * D + m] * lam[k] * a[k * D + m] * axes[j * D + m];
                covariances[(k * D + i) * D + j] = covariances[(k * D + j) * D + i] = s;
            }
    }
}

// Factors P (n, D, D) of n covariances, and their smallest pivots (n,).
API int64_t gmm_precision_cholesky(const double* covariances, int64_t n, int64_t D, double* P, double* pivots) {
    for (int64_t i = 0; i < n; i++) {
        memset(P + i * D * D, 0, size_t(D * D) * 8);
        pivots[i] = precision_cholesky(covariances + i * D * D, D, P + i * D * D);
    }
    return DONE;
}

API int64_t gmm_constrained_covariances(const CovarianceModel* model, int64_t K, int64_t D, const double* counts,
                                        const double* W, int64_t warm, double* covariances) {
    const CovarianceRoom room(K, D);
    if (room.missing()) return NO_MEMORY;
    constrained_covariances(*model, K, D, counts, W, warm != 0, covariances, room);
    return DONE;
}

API int64_t gmm_sizeof_covariancemodel() { return sizeof(CovarianceModel); }
