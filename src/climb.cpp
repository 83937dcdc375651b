#include "climb.hpp"

#include <math.h>
#include <string.h>

#include "patterns.hpp"

namespace {

constexpr double LOG_2PI = 1.8378770664093454836;
constexpr double EMPTY = 1e-4;  // rows: fewer hold no component, and none that shrinks has converged with more
constexpr double NO_ROWS = 1e-100;  // that an empty component counts as where it cannot collapse
constexpr int SWEEPS = 5;  // of an M-step whose parts depend on one another; the next one goes on where it ends; but of
constexpr int FIRST_SWEEPS = 1000;  // the first as many as change anything, so that it depends on the moments alone

void copy(double* to, const double* from, int64_t n) { memcpy(to, from, size_t(n) * 8); }

// What a step needs besides the state.
struct Room {
    CovarianceRoom covariances;
    Array<double> n, before, b;      // (K,), (D,), (D,)
    Array<double> A, Q, scatter;     // (D, D)
    Array<double> f, Wdf;            // (size,)
    Array<double> rounded;           // (K, D) what rounding added to the means

    Room(int64_t K, int64_t D)
        : covariances(K, D), n(K), before(D), b(D), A(D * D), Q(D * D), scatter(D * D), f(K * (1 + D + D * D)), Wdf(K * (1 + D + D * D)),
          rounded(K * D) {}
    bool missing() const { return covariances.missing() || ::missing(n, before, b, A, Q, scatter, f, Wdf, rounded); }
};

// A climb between two E-steps.
struct Climb {
    const Problem& problem;
    State& s;
    Room& room;
    const int64_t K = problem.K, D = problem.D;
    const Penalty& penalty = problem.penalty;
    const Fixed& fixed = problem.fixed;
    Progress& at = s.progress;
    // A shared covariance has one prior.
    const double share = problem.model.volume == EQUAL ? 1.0 / double(problem.K) : 1.0;

    void begin(const double* moments);
    Code advance(const Sums& sums);

  private:
    Code judge(double value, const Sums& sums);
    Code step();
    Code next_parameters();

    int64_t fill_weights();
    void fill_penalised_mean(int64_t k);
    void fill_mean(int64_t k, bool warm, bool pulled);
    bool fill_scatter(int64_t k);
    int64_t fill_factors(double& moved);
    int64_t maximise();
    double expected_scatter(double* scatter);
    double log_prior();

    Step now() const { return {s.log_scale, s.offsets, s.P, s.weights, s.covariances, s.z}; }
    void copy_step(const Step& to, const Step& from) const;
    bool fill_rounding();
    int64_t narrowest() const;
    void fill_moments(double* g) const;
    void set_metric();
    void weigh(const double* a, double* out) const;
    void remember();
    bool extrapolate();
    void undo();

    const double* mean_of(int64_t k) const { return s.z + K + k * D; }
};

// Set the state to the start of a climb from moments, for `advance` to make the first parameters.
void Climb::begin(const double* moments) {
    at = {};
    at.value = -INFINITY;
    at.remaining = INFINITY;
    at.iteration = at.remembered = -1;
    copy(s.z, moments, problem.size());
}

// Weights that maximise sum_k (n_k + concentration_k - 1) log w_k, with the noise as one more component; the component left
// without one, or -1. An extrapolation that leaves nothing to the noise is none: it would have no way back.
int64_t Climb::fill_weights() {
    double free = 1.0, total = 0.0;
    if (problem.noise) {
        double n = problem.total;
        for (int64_t k = 0; k < K; k++) n -= s.z[k];
        if (at.extrapolated && !(n > 0.0)) return 0;
        total = fmax(n + penalty.noise, 0.0);
    }
    for (int64_t k = 0; k < K; k++)
        if (fixed.has_weight[k])
            free -= fixed.weights[k];
        else
            total += s.z[k] + penalty.concentration[k];
    double rest = 1.0;
    for (int64_t k = 0; k < K; k++) {
        s.weights[k] = fixed.has_weight[k] ? fixed.weights[k] : free * (s.z[k] + penalty.concentration[k]) / total;
        if (penalty.rows > 0.0 && s.weights[k] >= 0.0) s.weights[k] = fmax(s.weights[k], 1e-300);  // it may be empty
        if (!(s.weights[k] > 0.0)) return k;
        rest -= s.weights[k];
    }
    s.log_noise = log(fmax(rest, 1e-300));
    return -1;
}

// (A B')_ij of upper triangular A and B (D, D), row by row.
double product(const double* A, const double* B, int64_t i, int64_t j, int64_t D) {
    double sum = 0.0;
    for (int64_t m = i > j ? i : j; m < D; m++) sum += A[i * D + m] * B[j * D + m];
    return sum;
}

// The mean of component k that maximises likelihood times normal prior given the covariance (P P')^-1 it had.
void Climb::fill_penalised_mean(int64_t k) {
    const double *P = s.P + k * D * D, *mean = mean_of(k), n = s.z[k];
    double* offset = s.offsets + k * D;
    for (int64_t i = 0; i < D; i++) {
        room.b[i] = offset[i] = 0.0;
        for (int64_t j = 0; j < D; j++) {
            const double own = n * product(P, P, i, j, D), prior = penalty.precision[i * D + j];
            room.A[i * D + j] = own + prior;
            room.b[i] += own * mean[j] + prior * penalty.location[j];
        }
    }
    precision_cholesky(room.A, D, room.Q);
    for (int64_t m = 0; m < D; m++) {
        double sum = 0.0;
        for (int64_t i = 0; i <= m; i++) sum += room.Q[i * D + m] * room.b[i];
        for (int64_t i = 0; i <= m; i++) offset[i] += room.Q[i * D + m] * sum;
    }
}

// The mean of component k, rounded to what it will be in the table's own units, so that nothing is lost on return.
void Climb::fill_mean(int64_t k, bool warm, bool pulled) {
    if (fixed.has_mean[k])
        copy(s.offsets + k * D, fixed.offsets + k * D, D);
    else if (pulled && warm)
        fill_penalised_mean(k);
    else
        copy(s.offsets + k * D, mean_of(k), D);
    for (int64_t j = 0; j < D; j++) {
        double& offset = s.offsets[k * D + j];
        const double rounded = (problem.center[j] + offset) - problem.center[j];
        room.rounded[k * D + j] = rounded - offset;
        offset = rounded;
    }
}

// What rounding the means may cost; false where a component is no wider than a hundred of the steps between numbers as
// large as its mean.
bool Climb::fill_rounding() {
    at.rounding = 0.0;
    for (int64_t k = 0; k < K; k++) {
        const double *P = s.P + k * D * D, *rounded = room.rounded + k * D;
        double square = 0.0;
        for (int64_t j = 0; j < D; j++) {
            double sum = 0.0;
            for (int64_t i = 0; i <= j; i++) sum += P[i * D + j] * rounded[i];
            square += sum * sum;
        }
        at.rounding += 0.5 * s.z[k] * square;
        if (square > 1e-4) {
            at.component = k;
            return false;
        }
    }
    return true;
}

// Fill the scatter with its mean given the precisions P P'; return its log determinant but for a constant. Given them it is
// Wishart, as its prior is, so that covariances and this mean in turn climb to where both are right with the scatter
// integrated out: an EM algorithm inside the M-step.
double Climb::expected_scatter(double* scatter) {
    double log_det = 0.0;
    for (int64_t i = 0; i < D; i++)
        for (int64_t j = 0; j < D; j++) {
            room.A[i * D + j] = penalty.scale_precision[i * D + j];
            for (int64_t k = 0; k < K; k++) room.A[i * D + j] += share * product(s.P + k * D * D, s.P + k * D * D, i, j, D);
        }
    precision_cholesky(room.A, D, room.Q);
    for (int64_t i = 0; i < D; i++) {
        log_det += 2.0 * log(room.Q[i * D + i]);
        for (int64_t j = 0; j < D; j++)
            scatter[i * D + j] = penalty.degrees * product(room.Q, room.Q, i, j, D) + penalty.floor[i * D + j];
    }
    return log_det;
}

// Logarithm of the prior density of the parameters, but for a constant, with the scatter integrated out.
double Climb::log_prior() {
    double value = penalty.noise != 0.0 ? penalty.noise * s.log_noise : 0.0;
    const double* known = penalty.degrees > 0.0 ? penalty.floor : penalty.scatter;
    for (int64_t k = 0; k < K; k++) {
        const double *P = s.P + k * D * D, *offset = s.offsets + k * D;
        if (penalty.concentration[k] != 0.0) value += penalty.concentration[k] * log(s.weights[k]);
        for (int64_t j = 0; j < D; j++) {
            value += share * penalty.rows * log(P[j * D + j]);
            for (int64_t i = 0; i < D; i++)
                value -= 0.5 * (offset[j] - penalty.location[j]) * penalty.precision[j * D + i] *
                         (offset[i] - penalty.location[i]);
            for (int64_t i = 0; i <= j; i++)
                for (int64_t m = 0; m <= j; m++) value -= 0.5 * share * P[i * D + j] * known[i * D + m] * P[m * D + j];
        }
    }
    if (penalty.degrees > 0.0) value += 0.5 * penalty.degrees * expected_scatter(room.scatter);
    return value;
}

// The scatter of component k about its mean, blobs and prior included; whether it is finite.
bool Climb::fill_scatter(int64_t k) {
    const double *S = s.z + K + K * D + k * D * D, *mean = mean_of(k), *offset = s.offsets + k * D;
    double* W = s.scatter + k * D * D;
    for (int64_t i = 0; i < D; i++)
        for (int64_t j = 0; j < D; j++) {
            const double shift = (mean[i] - offset[i]) * (mean[j] - offset[j]);
            const double blob = i == j ? problem.row_variance[i] : 0.0;
            W[i * D + j] = s.z[k] * (S[i * D + j] + shift + blob) + share * room.scatter[i * D + j];
            if (!(fabs(W[i * D + j]) < 1e300)) return false;
        }
    return true;
}

// Precision factors of the covariances, and how far their diagonals have moved; the component that has collapsed, or -1.
int64_t Climb::fill_factors(double& moved) {
    for (int64_t k = 0; k < K; k++) {
        double *P = s.P + k * D * D, *S = s.covariances + k * D * D;
        if (fixed.has_covariance[k]) copy(S, fixed.covariances + k * D * D, D * D);
        for (int64_t j = 0; j < D; j++) room.before[j] = P[j * D + j];
        if (!(precision_cholesky(S, D, P) > 1e-13)) return k;
        for (int64_t j = 0; j < D; j++) {
            if (P[j * D + j] > 1e12 * problem.reference[j]) return k;
            moved = fmax(moved, fabs(room.before[j] / P[j * D + j] - 1.0));
        }
    }
    return -1;
}

// Parameters that maximise the expected log posterior of z; the component that has collapsed, or -1.
//
// With priors the means given the covariances, the scatter that the covariances' prior expects where that has a prior
// itself, and the covariances given both are taken in turn (Meng & Rubin 1993), from those they had. At the first step
// there are none: means are taken unpenalised first, and the scatter's prior mean.
int64_t Climb::maximise() {
    bool blobs = true;  // none of them flat
    for (int64_t j = 0; j < D; j++) blobs = blobs && problem.row_variance[j] > 0.0;
    for (int64_t k = 0; k < K && blobs; k++)
        if (s.z[k] >= 0.0) s.z[k] = fmax(s.z[k], NO_ROWS);
    const int64_t empty = fill_weights();
    if (empty >= 0) return empty;
    bool pulled = false, warm = at.iteration >= 0;
    for (int64_t j = 0; j < D; j++) pulled = pulled || penalty.precision[j * D + j] > 0.0;
    for (int64_t k = 0; k < K; k++) {
        if (!(s.z[k] >= (penalty.rows > 0.0 || blobs || fixed.has_covariance[k] ? 0.0 : EMPTY))) return k;
        room.n[k] = s.z[k] + share * penalty.rows;
    }
    copy(room.scatter, penalty.scatter, D * D);
    const int sweeps = warm ? SWEEPS : FIRST_SWEEPS;
    const double still = warm ? 1e-10 : 1e-6;
    for (int sweep = 0; sweep < sweeps; sweep++) {
        if (penalty.degrees > 0.0 && warm) expected_scatter(room.scatter);
        for (int64_t k = 0; k < K; k++) {
            fill_mean(k, warm, pulled);
            if (!fill_scatter(k)) return k;
        }
        constrained_covariances(problem.model, K, D, room.n, s.scatter, warm, s.covariances, room.covariances);
        double moved = warm ? 0.0 : 1.0;
        const int64_t collapsed = fill_factors(moved);
        if (collapsed >= 0) return collapsed;
        if (!(pulled || penalty.degrees > 0.0) || moved < still) break;
        warm = true;
    }
    for (int64_t k = 0; k < K; k++) {
        s.log_scale[k] = log(s.weights[k]) - 0.5 * double(D) * LOG_2PI;
        for (int64_t j = 0; j < D; j++) {
            s.log_scale[k] += log(s.P[(k * D + j) * D + j]);
            for (int64_t i = 0; i <= j; i++) {
                const double p = s.P[(k * D + i) * D + j];
                s.log_scale[k] -= 0.5 * problem.row_variance[i] * p * p;
            }
        }
    }
    if (!fill_rounding()) return at.component;
    at.log_prior = penalty.rows > 0.0 ? log_prior() : 0.0;
    return -1;
}

void Climb::copy_step(const Step& to, const Step& from) const {
    copy(to.log_scale, from.log_scale, K);
    copy(to.offsets, from.offsets, K * D);
    copy(to.P, from.P, K * D * D);
    copy(to.weights, from.weights, K);
    copy(to.covariances, from.covariances, K * D * D);
    copy(to.z, from.z, problem.size());
}

// The component with the least conditional sd relative to the data's.
int64_t Climb::narrowest() const {
    double worst = 0.0;
    int64_t found = 0;
    for (int64_t k = 0; k < K; k++)
        for (int64_t j = 0; j < D; j++) {
            const double p = s.P[(k * D + j) * D + j];
            if (p > worst * problem.reference[j]) {
                worst = p / problem.reference[j];
                found = k;
            }
        }
    return found;
}

// g = the moments that the E-step's statistics, taken about the current means, amount to.
void Climb::fill_moments(double* g) const {
    for (int64_t k = 0; k < K; k++) {
        const double n = fmax(s.counts[k], 1e-300);  // an empty component stays where it is
        const double *first = s.first + k * D, *W = s.scatter + k * D * D;
        double *mean = g + K + k * D, *S = g + K + K * D + k * D * D;
        g[k] = s.counts[k];
        for (int64_t i = 0; i < D; i++) {
            const double shift = first[i] / n;
            mean[i] = s.offsets[k * D + i] + shift;
            for (int64_t j = 0; j < D; j++) S[i * D + j] = W[i * D + j] / n - shift * (first[j] / n);
        }
    }
}

// The metric is the information about a component's moments in rows that are known to be its own, errors and all, here with
// the components as they are. An EM step is one of steepest ascent in it (Xu & Jordan 1996), and it is the same in other
// units and along other axes.
void Climb::set_metric() {
    for (int64_t k = 0; k < K; k++) {
        double* T = s.metric_precisions + k * D * D;
        for (int64_t i = 0; i < D * D; i++) room.A[i] = s.covariances[k * D * D + i] + problem.mean_error[i];
        precision_cholesky(room.A, D, room.Q);
        s.metric_counts[k] = fmax(s.z[k], EMPTY);
        for (int64_t i = 0; i < D; i++)
            for (int64_t j = 0; j < D; j++) T[i * D + j] = product(room.Q, room.Q, i, j, D);
    }
}

// out = C A for (D, D) matrices.
void multiply(const double* __restrict C, const double* __restrict A, int64_t D, double* __restrict out) {
    for (int64_t i = 0; i < D; i++, out += D) {
        for (int64_t j = 0; j < D; j++) out[j] = 0.0;
        for (int64_t m = 0; m < D; m++)
            for (int64_t j = 0; j < D; j++) out[j] += C[i * D + m] * A[m * D + j];
    }
}

// out = W a of moments a (size,), W the metric.
void Climb::weigh(const double* a, double* out) const {
    for (int64_t k = 0; k < K; k++) {
        const double n = s.metric_counts[k], *T = s.metric_precisions + k * D * D, *mean = a + K + k * D;
        double *to_mean = out + K + k * D, *to_S = out + K + K * D + k * D * D;
        out[k] = a[k] / n;
        for (int64_t i = 0; i < D; i++) {
            to_mean[i] = 0.0;
            for (int64_t j = 0; j < D; j++) to_mean[i] += n * T[i * D + j] * mean[j];
        }
        multiply(T, a + K + K * D + k * D * D, D, room.A);
        multiply(room.A, T, D, to_S);
        for (int64_t i = 0; i < D * D; i++) to_S[i] *= 0.5 * n;
    }
}

// Shift the newest differences of moments and residuals in front.
void Climb::remember() {
    const int64_t size = problem.size(), kept = at.remembered < MEMORY - 1 ? at.remembered : MEMORY - 1;
    if (kept == 0) set_metric();
    double* const memory[] = {s.dz, s.df, s.Wdz};
    for (double* of : memory) memmove(of + size, of, size_t(kept * size) * 8);
    for (int64_t i = 0; i < size; i++) {
        s.dz[i] = s.z[i] - s.last_z[i];
        s.df[i] = room.f[i] - s.last_f[i];
    }
    weigh(s.dz, s.Wdz);
    at.remembered = kept + 1;
}

// z from the residual f = fallback - z and the remembered steps, by their multisecant equations: Anderson's mixing of
// type I (Fang & Saad 2009), symmetric since the residual times the metric is the gradient of the log-likelihood.
//
// Where residuals grew along the newest step it leads away from a saddle, to which a secant step would return; z then goes
// as far the other way along it (Dauphin et al. 2014).
//
// Returns whether z is such a step. It is the plain one where a variance would fall to less than a tenth of what that
// leaves: beside errors of measurement means no longer move where variances have vanished, and have to arrive before.
bool Climb::extrapolate() {
    const int64_t size = problem.size();
    int64_t m = at.remembered;
    double A[MEMORY][MEMORY], c[MEMORY];
    for (int64_t p = 0; p < m; p++) {
        c[p] = dot(s.Wdz + p * size, room.f, size);
        for (int64_t q = 0; q <= p; q++) A[p][q] = -dot(s.Wdz + p * size, s.df + q * size, size);
    }
    if (A[0][0] < 0.0) {
        weigh(s.df, room.Wdf);
        m = 1;
        c[0] = fabs(dot(room.Wdf, room.f, size)) / dot(room.Wdf, s.df, size);
    } else {
        for (int64_t p = 0; p < m; p++)  // Cholesky's factor, as far as the newest steps are independent and go upwards
            for (int64_t q = 0; q <= p; q++) {
                double t = A[p][q];
                for (int64_t r = 0; r < q; r++) t -= A[p][r] * A[q][r];
                if (p == q && !(t > 1e-6 * A[p][p])) {
                    m = p;
                    break;
                }
                A[p][q] = p == q ? sqrt(t) : t / A[q][q];
            }
        for (int64_t p = 0; p < m; p++) {
            for (int64_t r = 0; r < p; r++) c[p] -= A[p][r] * c[r];
            c[p] /= A[p][p];
        }
        for (int64_t p = m - 1; p >= 0; p--) {
            for (int64_t r = p + 1; r < m; r++) c[p] -= A[r][p] * c[r];
            c[p] /= A[p][p];
        }
    }
    for (int64_t p = 0; p < m; p++)
        for (int64_t i = 0; i < size; i++) s.z[i] += c[p] * (s.dz[p * size + i] + s.df[p * size + i]);
    for (int64_t k = 0; k < K; k++)
        for (int64_t j = 0; j < D; j++) {
            const int64_t i = K + K * D + (k * D + j) * D + j;
            if (s.z[i] < 0.1 * s.fallback[i]) {
                copy(s.z, s.fallback, size);
                return false;
            }
        }
    return m > 0;
}

// Take the plain step instead of an extrapolated one, and forget the differences that it was made from. An M-step goes on
// from the parameters before it, so that these, too, must be those of the last accepted step.
void Climb::undo() {
    copy_step(now(), s.accepted);
    at.extrapolated = at.quiet = 0;
    at.remembered = at.remembered < 0 ? at.remembered : 0;
    copy(s.z, s.fallback, problem.size());
}

// Take a value that an E-step has found and say whether the climb is over.
//
// It has converged when the gain that is left, the last gain times r / (1 - r) with r the ratio of successive gains
// (Aitken), is below the tolerance three times in succession. The last two of these steps are plain ones, for the gains of
// extrapolated ones say little of what is left on a plateau.
Code Climb::judge(double value, const Sums& sums) {
    const double noise = 1e-15 * fabs(value) + 1e-13, gain = value - at.value;
    // A plain step cannot lose but by rounding its means, or where a covariance is all but singular.
    if (!(gain >= -1e-9 * (1.0 + fabs(value)) - at.rounding)) {
        at.component = narrowest();
        return DEGENERATE;
    }
    if (gain < 0.0 && problem.tolerance > 0.0) {
        s.path[at.iteration] = at.value;
        copy_step(now(), s.accepted);
        at.remaining = 0.0;
        return CONVERGED;
    }
    s.path[at.iteration] = value;
    const double ratio = at.gain > 0.0 ? gain / at.gain : 1.0;
    at.value = value;
    at.log_likelihood = sums.log_likelihood;
    at.certainty = sums.certainty;
    if (at.iteration > 0) at.gain = gain;
    if (at.iteration > 1 && problem.tolerance > 0.0) {
        at.remaining = ratio < 1.0 ? gain * ratio / (1.0 - ratio) : INFINITY;
        at.quiet = fmax(at.remaining, gain) < problem.tolerance ? at.quiet + 1 : 0;
        if ((gain <= noise && !at.extrapolated) || at.quiet > 2) {
            at.remaining = fmax(fmin(at.remaining, problem.tolerance), 0.0);
            return CONVERGED;
        }
    }
    return at.iteration >= problem.max_iterations ? EXHAUSTED : RUNNING;
}

// The next moments from the E-step's statistics, extrapolated where that may pay. With tolerance zero the climb has
// converged where they no longer change.
Code Climb::step() {
    const int64_t size = problem.size();
    copy_step(s.accepted, now());
    fill_moments(s.fallback);
    double longest = 0.0;
    for (int64_t i = 0; i < size; i++) {
        room.f[i] = s.fallback[i] - s.z[i];
        longest = fmax(longest, fabs(problem.metric[i] * room.f[i]));
    }
    if (problem.tolerance == 0.0 && longest < 1e-14) {
        at.remaining = 0.0;
        return CONVERGED;
    }
    if (problem.tolerance > 0.0 && at.iteration > 0 && at.gain < 1e-2 * problem.total) {
        if (at.remembered >= 0)
            remember();
        else
            at.remembered = 0;
        copy(s.last_z, s.z, size);
        copy(s.last_f, room.f, size);
    }
    // The last step is a plain one, too, for an extrapolated one may have to be undone by a step more.
    copy(s.z, s.fallback, size);
    const bool may = at.remembered > 0 && at.quiet == 0 && at.iteration + 1 < problem.max_iterations;
    at.extrapolated = may && extrapolate();
    return RUNNING;
}

// Parameters from z, or from its fallback where those of an extrapolation collapse.
Code Climb::next_parameters() {
    while ((at.component = maximise()) >= 0) {
        if (!at.extrapolated) return DEGENERATE;
        undo();
    }
    at.iteration++;
    return RUNNING;
}

// Take the sums and statistics of an E-step, decide, and make the next parameters. A step that was extrapolated and lost
// log-likelihood is undone.
Code Climb::advance(const Sums& sums) {
    const double value = sums.log_likelihood + at.log_prior;
    if (at.iteration >= 0) {  // before, parameters are made from the moments given
        if (at.extrapolated && !(value >= at.value - (1e-15 * fabs(value) + 1e-13))) {
            s.path[at.iteration] = at.value;
            undo();
        } else {
            Code code = judge(value, sums);
            if (code == RUNNING) code = step();
            if (code != RUNNING) return code;
        }
    }
    return next_parameters();
}

// Write where a climb ended as the i-th outcome.
void keep(const Problem& p, const State& s, int64_t i, const Outcomes& out) {
    out.progress[i] = s.progress;
    copy(out.moments + i * p.size(), s.z, p.size());
    copy(out.weights + i * p.K, s.weights, p.K);
    copy(out.offsets + i * p.K * p.D, s.offsets, p.K * p.D);
    copy(out.covariances + i * p.K * p.D * p.D, s.covariances, p.K * p.D * p.D);
}

}  // namespace

API int64_t gmm_sizeof_penalty() { return sizeof(Penalty); }
API int64_t gmm_sizeof_fixed() { return sizeof(Fixed); }
API int64_t gmm_sizeof_problem() { return sizeof(Problem); }
API int64_t gmm_sizeof_progress() { return sizeof(Progress); }
API int64_t gmm_sizeof_step() { return sizeof(Step); }
API int64_t gmm_sizeof_state() { return sizeof(State); }
API int64_t gmm_sizeof_outcomes() { return sizeof(Outcomes); }

// Begin from moments (size,), and make the first parameters; `state->progress.code` says whether there are any.
API int64_t gmm_begin(const Problem* problem, State* state, const double* moments) {
    Room room(problem->K, problem->D);
    if (room.missing()) return NO_MEMORY;
    Climb climb{*problem, *state, room};
    climb.begin(moments);
    state->progress.code = climb.advance({0.0, 0.0, 0.0});
    return DONE;
}

// Go on once an E-step has filled the state's statistics and these sums.
API int64_t gmm_advance(const Problem* problem, State* state, const Sums* sums) {
    Room room(problem->K, problem->D);
    if (room.missing()) return NO_MEMORY;
    state->progress.code = Climb{*problem, *state, room}.advance(*sums);
    return DONE;
}

API int64_t gmm_keep(const Problem* problem, const State* state, int64_t i, const Outcomes* outcomes) {
    keep(*problem, *state, i, *outcomes);
    return DONE;
}

// Climb from moments [first, last) of (S, size) one after another, all N rows at once. The weights of start i begin
// i * stride entries after `rows->weight`.
API int64_t gmm_climb(const Rows* rows, int64_t N, int64_t stride, int64_t diagonal, const Problem* problem, State* state,
                      const double* moments, int64_t first, int64_t last, const Outcomes* outcomes) {
    Room room(problem->K, problem->D);
    if (room.missing()) return NO_MEMORY;
    State& s = *state;
    Climb climb{*problem, s, room};
    Mixture mixture{problem->K, problem->D, s.log_scale, s.offsets, s.P, diagonal, 0.0};
    const Statistics statistics{s.counts, s.first, s.scatter};
    for (int64_t i = first; i < last; i++) {
        Rows own = *rows;
        own.weight += i * stride;
        climb.begin(moments + i * problem->size());
        Sums sums{0.0, 0.0, 0.0};
        Code code;
        while ((code = climb.advance(sums)) == RUNNING) {
            mixture.log_noise = s.log_noise;
            const bool more = s.progress.iteration < problem->max_iterations;
            const Status status = accumulate(own, mixture, 0, N, more, statistics, sums);
            if (status != DONE) return status;
        }
        s.progress.code = code;
        keep(*problem, s, i, *outcomes);
    }
    return DONE;
}
