#include "chart.hpp"

#include <math.h>
#include <string.h>

#include "axes.hpp"
#include "linear.hpp"

namespace {

// Entry i of a vector of `size` log ratios that sum to zero, of which all but the last are given.
double log_ratio(const double* given, int64_t size, int64_t i) {
    if (i < size - 1) return given[i];
    double last = 0.0;
    for (int64_t j = 0; j < size - 1; j++) last -= given[j];
    return last;
}

// Add the gradient by entry i of such a vector.
void add_by_log_ratio(double* gradient, int64_t size, int64_t i, double value) {
    if (i < size - 1)
        gradient[i] += value;
    else
        for (int64_t j = 0; j < size - 1; j++) gradient[j] -= value;
}

// log sum exp of a vector of log ratios.
double log_sum(const double* given, int64_t size) {
    double largest = 0.0, total = 0.0;  // of entries that sum to zero one is not negative
    for (int64_t i = 0; i < size; i++) largest = fmax(largest, log_ratio(given, size, i));
    for (int64_t i = 0; i < size; i++) total += exp(log_ratio(given, size, i) - largest);
    return largest + log(total);
}

}  // namespace

int64_t Chart::square(int64_t k, int64_t j) const {
    return squares() + (copies > 1 ? k : 0) * columns + (columns > 1 ? j : 0);
}

int64_t Chart::entry(int64_t k) const { return above() + (above_copies > 1 ? k : 0) * off_diagonal; }

double Chart::log_volume(const double* theta, int64_t k) const {
    return ratios == VOLUMES ? log_ratio(theta + log_ratios(), K, k) : 0.0;
}

void Chart::log_weights(const double* theta, double* out) const {
    const double total = log_sum(theta, n_weights);
    for (int64_t k = 0; k < n_weights; k++) out[k] = log_ratio(theta, n_weights, k) - total;
}

// Also forgets the gradient.
void Chart::find_axes(const double* theta, double* axes) const {
    if (!frames) return;
    memset(axes, 0, size_t(room_for_axes()) * sizeof(double));
    for (int64_t m = 0; m < frames; m++) {
        double* q = axes + m * D * D;
        axes_of_frame(theta + first_frame() + m * D * (D - 1), D, q, R(axes, m));
        for (int64_t i = 0; i < D; i++)
            for (int64_t p = 0; p < D; p++)
                for (int64_t j = 0; j < D; j++)
                    along(axes)[j] += q[i * D + j] * scale[i * D + p] * q[p * D + j] / double(frames);
    }
}

void Chart::roots_of_precisions(const double* theta, int64_t k, const double* axes, double* root) const {
    const double volume = log_volume(theta, k);
    for (int64_t j = 0; j < D; j++) {
        double t = theta[square(k, j)] + volume;
        if (ratios == SQUARES) t += log_ratio(theta + log_ratios() + k * (D - 1), D, j);
        root[j] = exp(0.5 * t) / sqrt(along(axes)[j]);
    }
}

void Chart::factor(const double* theta, int64_t k, const double* axes, double* A, double* P) const {
    if (kind == CORRELATIONS) return correlated_factor(theta, k, A, P);
    if (frames) {
        double* root = A;  // the first row of A, which is the last to be filled
        roots_of_precisions(theta, k, axes, root);
        return factor_along_axes(axes + frame(k) * D * D, root, D, P, A);
    }
    const double volume = log_volume(theta, k), by_volume = exp(0.5 * volume);
    const double* entries = theta + entry(k);
    memset(A, 0, size_t(D * D) * sizeof(double));
    for (int64_t i = 0; i < D; i++) {
        double t = theta[square(k, i)] + volume;
        if (ratios == SQUARES) t += log_ratio(theta + log_ratios() + k * (D - 1), D, i);
        A[i * D + i] = exp(0.5 * t);
        for (int64_t j = i + 1; off_diagonal && j < D; j++) A[i * D + j] = *entries++ * by_volume;
    }
    memset(P, 0, size_t(D * D) * sizeof(double));
    for (int64_t i = 0; i < D; i++)
        for (int64_t m = i; m < D; m++)
            for (int64_t j = m; j < D; j++) P[i * D + j] += U[i * D + m] * A[m * D + j];
}

void Chart::correlated_factor(const double* theta, int64_t k, double* A, double* P) const {
    const double* logits = theta + entry(k);
    memset(A, 0, size_t(D * D) * sizeof(double));
    for (int64_t i = 0; i < D; i++) {
        double sd = exp(theta[square(k, i)]), rest = 1.0;
        for (int64_t j = 0; off_diagonal && j < i; j++) {
            const double z = tanh(0.5 * *logits++);
            A[i * D + j] = sd * z * rest;
            rest *= sqrt(1.0 - z * z);
        }
        A[i * D + i] = sd * rest;
    }
    for (int64_t j = 0; j < D; j++)  // P = A^-T, column by column
        for (int64_t i = D - 1; i >= 0; i--) {
            double s = i == j ? 1.0 : 0.0;
            for (int64_t p = i + 1; p <= j; p++) s -= A[p * D + i] * P[p * D + j];
            P[i * D + j] = i <= j ? s / A[i * D + i] : 0.0;
        }
}

void Chart::pull_back(const double* theta, int64_t k, double count, const double* dP, const double* A, const double* P,
                      double* axes, double* work, double* gradient) const {
    if (kind == CORRELATIONS) return pull_back_correlated(theta, k, count, dP, A, P, work, gradient);
    if (frames) return pull_back_along_axes(theta, k, count, dP, A, P, axes, work, gradient);
    double* dA = work;  // U' dP
    memset(dA, 0, size_t(D * D) * sizeof(double));
    for (int64_t p = 0; p < D; p++)
        for (int64_t i = p; i < D; i++)
            for (int64_t j = i; j < D; j++) dA[i * D + j] += U[p * D + i] * dP[p * D + j];
    const double root_volume = exp(0.5 * log_volume(theta, k));
    double* by_entry = gradient + entry(k);
    double by_volume = 0.0;
    for (int64_t i = 0; i < D; i++) {
        const double by_square = 0.5 * (dA[i * D + i] * A[i * D + i] + count);
        gradient[square(k, i)] += by_square;
        by_volume += by_square;
        if (ratios == SQUARES) add_by_log_ratio(gradient + log_ratios() + k * (D - 1), D, i, by_square);
        for (int64_t j = i + 1; off_diagonal && j < D; j++) {
            *by_entry++ += dA[i * D + j] * root_volume;
            by_volume += 0.5 * dA[i * D + j] * A[i * D + j];
        }
    }
    if (ratios == VOLUMES) add_by_log_ratio(gradient + log_ratios(), K, k, by_volume);
}

void Chart::pull_back_along_axes(const double* theta, int64_t k, double count, const double* dP, const double* A,
                                 const double* P, double* axes, double* work, double* gradient) const {
    double *C = work, *root = C + D * D, *by_scale = along(axes) + D, *turn = turns(axes, frame(k));
    gradient_along_axes(P, A, dP, D, root + D, C);
    roots_of_precisions(theta, k, axes, root);
    for (int64_t i = 0; i < D; i++) {
        const double by_square = 0.5 * (C[i * D + i] + count);
        gradient[square(k, i)] += by_square;
        by_scale[i] -= by_square;
        if (ratios == SQUARES) add_by_log_ratio(gradient + log_ratios() + k * (D - 1), D, i, by_square);
        if (ratios == VOLUMES) add_by_log_ratio(gradient + log_ratios(), K, k, by_square);
        for (int64_t j = 0; j < i; j++) turn[i * D + j] += C[i * D + j] * (root[j] / root[i] - root[i] / root[j]);
    }
}

double Chart::pull_back_frames(double* axes, double* work, double* gradient) const {
    const int64_t n = D - 1;
    const double *size = along(axes), *by_scale = size + D;
    double *product = work, *dR = work + D * D, value = 0.0;
    for (int64_t m = 0; m < frames; m++) {
        const double *q = axes + m * D * D, *r = R(axes, m);
        double* turn = turns(axes, m);
        memset(product, 0, size_t(D * D) * sizeof(double));  // scale q
        for (int64_t i = 0; i < D; i++)
            for (int64_t p = 0; p < D; p++)
                for (int64_t j = 0; j < D; j++) product[i * D + j] += scale[i * D + p] * q[p * D + j];
        for (int64_t i = 0; i < D; i++)
            for (int64_t j = 0; j < i; j++) {
                double c = 0.0;
                for (int64_t p = 0; p < D; p++) c += q[p * D + i] * product[p * D + j];
                turn[i * D + j] += 2.0 * c / double(frames) * (by_scale[j] / size[j] - by_scale[i] / size[i]);
            }
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) {
                const double stretch = i <= j ? (r[i * n + j] - double(i == j)) / slack : 0.0;
                value -= 0.5 * stretch * stretch;
                dR[i * n + j] = -stretch / slack;
            }
        pull_back_frame(q, r, turn, dR, D, dR + D * D, gradient + first_frame() + m * D * n);
    }
    return value;
}

// The same through P = A^-T: the gradient by the lower A is -P dP' P.
void Chart::pull_back_correlated(const double* theta, int64_t k, double count, const double* dP, const double* A,
                                 const double* P, double* work, double* gradient) const {
    double *half = work, *dA = work + D * D;
    memset(work, 0, size_t(2 * D * D) * sizeof(double));
    for (int64_t i = 0; i < D; i++)
        for (int64_t j = 0; j < D; j++)
            for (int64_t p = i > j ? i : j; p < D; p++) half[i * D + j] += P[i * D + p] * dP[j * D + p];
    for (int64_t i = 0; i < D; i++) {
        for (int64_t p = 0; p <= i; p++)
            for (int64_t j = p; j <= i; j++) dA[i * D + j] -= half[i * D + p] * P[p * D + j];
        dA[i * D + i] -= count / A[i * D + i];
    }
    const double* logits = theta + entry(k);
    double* by_logit = gradient + entry(k);
    for (int64_t i = 0; i < D; i++) {
        double by_sd = 0.0;
        for (int64_t j = 0; j <= i; j++) by_sd += dA[i * D + j] * A[i * D + j];
        gradient[square(k, i)] += by_sd;
        if (!off_diagonal) continue;
        double by_rest = dA[i * D + i] * A[i * D + i], rest = A[i * D + i];  // by and of what entries to the left leave
        for (int64_t j = i - 1; j >= 0; j--) {
            const double z = tanh(0.5 * logits[j]), share = 1.0 - z * z;
            rest /= sqrt(share);
            by_logit[j] += 0.5 * (dA[i * D + j] * rest * share - by_rest * z);
            by_rest += dA[i * D + j] * A[i * D + j];
        }
        logits += i;
        by_logit += i;
    }
}

double Chart::log_prior(const double* theta, double* work, double* gradient) const {
    if (kind == CORRELATIONS) return log_prior_of_correlations(theta, gradient);
    double value = 0.0;
    for (int64_t i = squares(); i < above(); i++) {
        const double degrees = first[(i - squares()) % columns];
        value += 0.5 * degrees * theta[i];
        gradient[i] += 0.5 * degrees;
    }
    const double fixed = kind == BARTLETT ? 1.0 : floor;  // share of the scale matrix that is not integrated out
    for (int64_t i = squares(); i < above(); i++) {
        const double square = fixed * exp(theta[i]);
        value -= 0.5 * square;
        gradient[i] -= 0.5 * square;
    }
    for (int64_t i = above(); i < log_ratios(); i++) {
        value -= 0.5 * fixed * theta[i] * theta[i];
        gradient[i] -= fixed * theta[i];
    }
    if (kind == MARGINAL && off_diagonal && columns > 1) value += log_prior_given_matrix(theta, work, gradient);
    if (kind == MARGINAL && !(off_diagonal && columns > 1)) value += log_prior_given_sizes(theta, gradient);
    return value + log_prior_of_ratios(theta, gradient);
}

double Chart::log_prior_of_correlations(const double* theta, double* gradient) const {
    double value = 0.0;
    for (int64_t i = squares(); i < above(); i++) {
        const int64_t j = (i - squares()) % columns;
        const double t = theta[i], a = first[j], b = second[j];
        if (scales == LOG_NORMAL) {
            value -= 0.5 * ((t - a) / b) * ((t - a) / b);
            gradient[i] -= (t - a) / (b * b);
        } else if (scales == HALF_NORMAL) {
            const double square = (exp(t) / a) * (exp(t) / a);
            value += t - 0.5 * square;
            gradient[i] += 1.0 - square;
        } else {
            value += t - exp(t) * a;
            gradient[i] += 1.0 - exp(t) * a;
        }
    }
    for (int64_t i = above(); i < log_ratios(); i++) {
        const double y = theta[i], b = beta[(i - above()) % off_diagonal];
        value -= b * (fabs(y) + 2.0 * log1p(exp(-fabs(y))));
        gradient[i] -= b * tanh(0.5 * y);
    }
    return value;
}

// A scale for each column, or one for all entries (then only are there any above the diagonal), integrated out.
double Chart::log_prior_given_sizes(const double* theta, double* gradient) const {
    const double n_above = double(above_copies * off_diagonal);
    double value = 0.0;
    for (int64_t j = 0; j < columns; j++) {
        const double power = 0.5 * (double(copies) * first[j] + n_above + strength);
        double total = strength;
        for (int64_t i = squares() + j; i < above(); i += columns) total += exp(theta[i]);
        for (int64_t i = above(); i < log_ratios(); i++) total += theta[i] * theta[i];
        value -= power * log(total);
        for (int64_t i = squares() + j; i < above(); i += columns) gradient[i] -= power * exp(theta[i]) / total;
        for (int64_t i = above(); i < log_ratios(); i++) gradient[i] -= 2.0 * power * theta[i] / total;
    }
    return value;
}

// The scale matrix integrated out: - power log|B| / 2 with B = strength I + sum A A' over the copies of Bartlett's factor.
double Chart::log_prior_given_matrix(const double* theta, double* work, double* gradient) const {
    const double power = double(copies) * first[D - 1] + strength;
    double *B = work, *A = work + D * D, *X = A + copies * D * D;
    memset(work, 0, size_t((copies + 1) * D * D) * sizeof(double));
    for (int64_t i = 0; i < D; i++) B[i * D + i] = strength;
    for (int64_t c = 0; c < copies; c++) {
        double* a = A + c * D * D;
        const double* entries = theta + entry(c);
        for (int64_t i = 0; i < D; i++) {
            a[i * D + i] = exp(0.5 * theta[square(c, i)]);
            for (int64_t j = i + 1; j < D; j++) a[i * D + j] = *entries++;
        }
        add_outer(a, D, true, B);
    }
    cholesky(B, D);
    double value = 0.0;
    for (int64_t i = 0; i < D; i++) value -= power * log(B[i * D + i]);
    for (int64_t c = 0; c < copies; c++) {
        const double* a = A + c * D * D;
        double* by_entry = gradient + entry(c);
        memcpy(X, a, size_t(D * D) * sizeof(double));
        solve_lower(B, D, D, X);  // the gradient by A is - power B^-1 A
        solve_lower_transposed(B, D, D, X);
        for (int64_t i = 0; i < D; i++) {
            gradient[square(c, i)] -= 0.5 * power * X[i * D + i] * a[i * D + i];
            for (int64_t j = i + 1; j < D; j++) *by_entry++ -= power * X[i * D + j];
        }
    }
    return value;
}

double Chart::log_prior_of_ratios(const double* theta, double* gradient) const {
    double value = 0.0, concentration = 0.0;
    for (int64_t i = 0; i < n_dirichlet; i++) concentration += dirichlet[i];
    for (int64_t v = 0; v < n_vectors(); v++) {
        const int64_t place = log_ratios() + v * (n_dirichlet - 1);
        const double total = log_sum(theta + place, n_dirichlet);
        for (int64_t i = 0; i < n_dirichlet; i++) {
            const double log_q = log_ratio(theta + place, n_dirichlet, i) - total;
            value += dirichlet[i] * log_q;
            add_by_log_ratio(gradient + place, n_dirichlet, i, dirichlet[i] - concentration * exp(log_q));
        }
    }
    return value;
}
