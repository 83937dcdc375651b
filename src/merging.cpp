// Hierarchies of merged components, and the modes that components climb to.
#include <math.h>
#include <string.h>

#include "api.hpp"
#include "memory.hpp"

namespace {

constexpr double LARGEST_STEP = 0.1;  // sds that a Newton step may go: a longer one could leave a mode's basin
constexpr double CLOSE = 1e-3;        // sds between two ends of climbs that are the same mode

double x_log_x(double x) { return x > 0.0 ? x * log(x) : 0.0; }

// Entropy that merging two columns saves, in nats; f and g are their x_log_x.
double saved(const double* x, const double* y, const double* f, const double* g, int64_t n) {
    double total = 0.0;
    for (int64_t i = 0; i < n; i++)
        if (x[i] > 0.0 && y[i] > 0.0) total += x_log_x(x[i] + y[i]) - f[i] - g[i];
    return total;
}

// Lower Cholesky factor of A (D, D) into L; whether A is positive definite.
bool cholesky(const double* A, int64_t D, double* L) {
    for (int64_t i = 0; i < D; i++)
        for (int64_t j = 0; j <= i; j++) {
            double s = A[i * D + j];
            for (int64_t m = 0; m < j; m++) s -= L[i * D + m] * L[j * D + m];
            if (i > j)
                L[i * D + j] = s / L[j * D + j];
            else if (s > 1e-12 * A[i * D + i])
                L[i * D + i] = sqrt(s);
            else
                return false;
        }
    return true;
}

// x with L L' x = b.
void solve(const double* L, const double* b, int64_t D, double* x) {
    for (int64_t i = 0; i < D; i++) {
        double s = b[i];
        for (int64_t m = 0; m < i; m++) s -= L[i * D + m] * x[m];
        x[i] = s / L[i * D + i];
    }
    for (int64_t i = D - 1; i >= 0; i--) {
        double s = x[i];
        for (int64_t m = i + 1; m < D; m++) s -= L[m * D + i] * x[m];
        x[i] = s / L[i * D + i];
    }
}

// v' A v
double squared_length(const double* v, const double* A, int64_t D) {
    double total = 0.0;
    for (int64_t i = 0; i < D; i++)
        for (int64_t j = 0; j < D; j++) total += v[i] * A[i * D + j] * v[j];
    return total;
}

// One mixture's density: scale (K,) is log w + log|P|, means (K, D), precisions (K, D, D).
struct Hills {
    int64_t K, D;
    const double *scale, *means, *precisions;
};

// What the log density looks like at a point.
struct Slopes {
    double height;             // nats, up to a constant
    Array<double> gradient;    // (D,)
    Array<double> curvature;   // (D, D) minus the Hessian
    Array<double> precision;   // (D, D) of the components, their mean at the point
    Array<double> pull;        // (K, D) towards each component
    Array<double> joint;       // (K,)

    Slopes(int64_t K, int64_t D) : gradient(D), curvature(D * D), precision(D * D), pull(K * D), joint(K) {}
    bool no_room() const { return missing(gradient, curvature, precision, pull, joint); }
    void look(const Hills& hills, const double* x);
};

void Slopes::look(const Hills& hills, const double* x) {
    const int64_t K = hills.K, D = hills.D;
    double largest = -INFINITY, total = 0.0;
    for (int64_t k = 0; k < K; k++) {
        const double *mean = hills.means + k * D, *A = hills.precisions + k * D * D;
        double q = 0.0;
        for (int64_t i = 0; i < D; i++) {
            double s = 0.0;
            for (int64_t j = 0; j < D; j++) s += A[i * D + j] * (mean[j] - x[j]);
            pull[k * D + i] = s;
            q += s * (mean[i] - x[i]);
        }
        joint[k] = hills.scale[k] - 0.5 * q;
        largest = fmax(largest, joint[k]);
    }
    for (int64_t k = 0; k < K; k++) total += joint[k] = exp(joint[k] - largest);
    height = largest + log(total);
    memset(gradient, 0, size_t(D) * 8);
    memset(curvature, 0, size_t(D * D) * 8);
    memset(precision, 0, size_t(D * D) * 8);
    for (int64_t k = 0; k < K; k++) {
        const double r = joint[k] / total, *p = pull + k * D;
        for (int64_t i = 0; i < D; i++) {
            gradient[i] += r * p[i];
            for (int64_t j = 0; j < D; j++) {
                precision[i * D + j] += r * hills.precisions[(k * D + i) * D + j];
                curvature[i * D + j] -= r * p[i] * p[j];
            }
        }
    }
    for (int64_t i = 0; i < D; i++)
        for (int64_t j = 0; j < D; j++) curvature[i * D + j] += precision[i * D + j] + gradient[i] * gradient[j];
}

// Where a climb from x ends, in place; `at` is left looking from there. L (D, D), step and trial (D,) are room to work.
void climb(const Hills& hills, double* x, Slopes& at, double* L, double* step, double* trial) {
    const int64_t D = hills.D;
    int tilted = 0;
    at.look(hills, x);
    for (int iteration = 0; iteration < 100000; iteration++) {
        bool newton = cholesky(at.curvature, D, L);
        if (newton) {
            solve(L, at.gradient, D, step);
            newton = squared_length(step, at.precision, D) < LARGEST_STEP * LARGEST_STEP;
        }
        if (!newton) {
            cholesky(at.precision, D, L);
            solve(L, at.gradient, D, step);
        }
        const double length = squared_length(step, at.precision, D), height = at.height;
        if (length < 1e-20) {
            if (newton || tilted == 3) return;
            const int64_t i = tilted++ % D;  // a saddle: leave it, each time in another direction
            memset(step, 0, size_t(D) * 8);
            step[i] = 1e-3 / sqrt(at.precision[i * D + i]);
        }
        for (int64_t i = 0; i < D; i++) trial[i] = x[i] + step[i];
        at.look(hills, trial);
        if (newton && at.height < height) {
            at.look(hills, x);
            if (length < 1e-12) return;  // rounding
            cholesky(at.precision, D, L);
            solve(L, at.gradient, D, step);
            for (int64_t i = 0; i < D; i++) trial[i] = x[i] + step[i];
            at.look(hills, trial);
        }
        memcpy(x, trial, size_t(D) * 8);
    }
}

}  // namespace

// Merge the rows of R (K, N), responsibilities, overwritten, pair by pair. Into line n - 1 of n clusters: the entropy (K,)
// of the responsibilities in nats, and the clusters' numbers of the components, groups (K, K).
API int64_t gmm_merge(double* R, int64_t K, int64_t N, double* entropy, int64_t* groups) {
    Array<double> gain(K * K), f(K * N), column_entropy(K);
    Array<int64_t> head(K);  // of each component: the smallest component of its cluster
    if (missing(gain, f, column_entropy, head)) return NO_MEMORY;
    auto gain_of = [&](int64_t j, int64_t k) {
        return saved(R + j * N, R + k * N, f + j * N, f + k * N, N);
    };
    double total = 0.0;
    for (int64_t k = 0; k < K; k++) {
        head[k] = k;
        for (int64_t i = 0; i < N; i++) total -= f[k * N + i] = x_log_x(R[k * N + i]);
        for (int64_t j = 0; j < k; j++) gain[j * K + k] = gain_of(j, k);
    }
    for (int64_t n = K; n > 0; n--) {
        entropy[n - 1] = n > 1 ? fmax(total, 0.0) : 0.0;
        int64_t *group = groups + (n - 1) * K, number = 0;
        for (int64_t k = 0; k < K; k++) group[k] = head[k] == k ? number++ : group[head[k]];
        if (n == 1) break;
        int64_t first = 0, second = 0;
        double most = -INFINITY;
        for (int64_t k = 0; k < K; k++)
            for (int64_t j = 0; j < k; j++)
                if (head[j] == j && head[k] == k && gain[j * K + k] > most) {
                    first = j;
                    second = k;
                    most = gain[j * K + k];
                }
        total -= most;
        for (int64_t i = 0; i < N; i++) {
            double& r = R[first * N + i];
            r += R[second * N + i];
            f[first * N + i] = x_log_x(r);
        }
        for (int64_t k = 0; k < K; k++)
            if (head[k] == second) head[k] = first;
        for (int64_t k = 0; k < K; k++)
            if (head[k] == k && k != first) {
                const int64_t a = k < first ? k : first, b = k < first ? first : k;
                gain[a * K + b] = gain_of(a, b);
            }
    }
    return DONE;
}

// Where the means of mixtures [start, stop) climb to, locations (S, K, D), and which of the modes that is, groups (S, K).
// scale (S, K) is log w + log|P|, means (S, K, D), precisions (S, K, D, D).
API int64_t gmm_modes(const double* scale, const double* means, const double* precisions, int64_t K, int64_t D,
                      int64_t start, int64_t stop, double* locations, int64_t* groups) {
    Slopes at(K, D);
    Array<double> L(D * D), step(D), trial(D);
    if (at.no_room() || missing(L, step, trial)) return NO_MEMORY;
    for (int64_t s = start; s < stop; s++) {
        const Hills hills{K, D, scale + s * K, means + s * K * D, precisions + s * K * D * D};
        double* ends = locations + s * K * D;
        int64_t *group = groups + s * K, number = 0;
        memcpy(ends, hills.means, size_t(K * D) * 8);
        for (int64_t k = 0; k < K; k++) {
            double* x = ends + k * D;
            climb(hills, x, at, L, step, trial);
            group[k] = -1;
            for (int64_t j = 0; j < k && group[k] < 0; j++) {
                for (int64_t i = 0; i < D; i++) step[i] = ends[j * D + i] - x[i];
                if (squared_length(step, at.precision, D) < CLOSE * CLOSE) group[k] = group[j];
            }
            if (group[k] < 0) group[k] = number++;
        }
    }
    return DONE;
}
