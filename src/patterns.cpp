#include "patterns.hpp"

#include <math.h>
#include <string.h>

#include "covariance.hpp"
#include "memory.hpp"

namespace {

constexpr double LOG_2PI = 1.8378770664093454836;

// Move row i of upper triangular R (D, D) to row `last`, with R R' turned accordingly: rotations of the columns make R
// triangular again. Rows and columns after `last` stay as they are.
void move_row(double* R, int64_t D, int64_t i, int64_t last, double* moved) {
    memcpy(moved, R + i * D, size_t(D) * 8);
    memmove(R + i * D, R + (i + 1) * D, size_t((last - i) * D) * 8);
    double* bottom = R + last * D;
    memcpy(bottom, moved, size_t(D) * 8);
    for (int64_t j = i; j < last; j++) {
        const double length = hypot(bottom[j], bottom[j + 1]);
        if (length == 0.0) continue;
        const double cos = bottom[j + 1] / length, sin = bottom[j] / length;
        for (int64_t row = 0; row <= j; row++) {
            double &left = R[row * D + j], &right = R[row * D + j + 1];
            const double turned = cos * left - sin * right;
            right = sin * left + cos * right;
            left = turned;
        }
        bottom[j] = 0.0;
        bottom[j + 1] = length;
    }
    for (int64_t j = i; j < last; j++)  // signs of columns are free
        if (R[j * D + j] < 0.0)
            for (int64_t row = 0; row <= j; row++) R[row * D + j] = -R[row * D + j];
}

// Inverse of upper triangular A (n, n), both with rows `width` apart; zeros below the diagonal.
void invert_upper(const double* A, int64_t width, int64_t n, double* inverse) {
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = n - 1; i >= 0; i--) {
            double t = i == j ? 1.0 : 0.0;
            for (int64_t m = i + 1; m <= j; m++) t -= A[i * width + m] * inverse[m * n + j];
            inverse[i * n + j] = i <= j ? t / A[i * width + i] : 0.0;
        }
}

// A mixture as one group of rows sees it, and what the group's statistics say of the whole.
//
// Given what a row's observed values are, some of its true values are inferred: the missing ones, or all where there are
// errors. Their expectation is mean + B (observed - mean), their covariance C. So n rows with first moments f and scatter W
// about the component's mean have true values with B f and B W B' + n C.
class Marginal {
    const Mixture& whole;
    const int64_t K, D;
    Array<double> log_scale, offsets, P, counts, first, scatter;  // of the group's mixture and statistics
    Array<double> B, C;  // of each component: (inferred, observed), (inferred, inferred)
    Array<double> covariances;  // (K, D, D) of the whole
    Array<double> R, S, T, moved, product;
    Array<int64_t> all;  // columns
    Lone lone;
    const int64_t* columns;
    int64_t observed, inferred;  // columns; the inferred are the last of them

    void find_covariances();
    void without_errors(int64_t k);
    void with_errors(int64_t k, const double* errors);

  public:
    Mixture mixture;
    Statistics statistics;

    Marginal(const Mixture& m, const Patterns& patterns)
        : whole(m), K(m.K), D(m.D), log_scale(K), offsets(K * D), P(K * D * D), counts(K), first(K * D), scatter(K * D * D),
          B(K * D * D), C(K * D * D), covariances(K * D * D), R(D * D), S(D * D), T(D * D), moved(D), product(D * D),
          all(D), lone{patterns.row_errors, patterns.n_row_errors, patterns.correlated, covariances} {
        if (!missing() && (patterns.errors || patterns.n_rows > patterns.start[patterns.n])) find_covariances();
    }
    bool missing() const {
        return ::missing(log_scale, offsets, P, counts, first, scatter, B, C, covariances, R, S, T, moved, product, all);
    }

    View see(const Patterns& patterns, int64_t group);
    View see_alone(const Patterns& patterns);
    void add_to(const Statistics& s);
};

View Marginal::see(const Patterns& patterns, int64_t group) {
    const double* errors = patterns.errors ? patterns.errors + group * D * D : nullptr;
    columns = patterns.columns + group * D;
    observed = patterns.n_observed[group];
    inferred = errors ? D : D - observed;
    const int64_t d = observed;
    for (int64_t k = 0; k < K; k++) {
        log_scale[k] = whole.log_scale[k] + 0.5 * double(D - d) * LOG_2PI;
        for (int64_t j = 0; j < d; j++) offsets[k * d + j] = whole.offsets[k * D + columns[j]];
        if (errors)
            with_errors(k, errors);
        else
            without_errors(k);
        for (int64_t j = 0; j < D; j++) log_scale[k] -= log(whole.P[(k * D + j) * D + j]);
        for (int64_t j = 0; j < d; j++) log_scale[k] += log(P[(k * d + j) * d + j]);
    }
    mixture = {K, d, log_scale, offsets, P, whole.diagonal && !errors, whole.log_noise};
    statistics = {counts, first, scatter};
    return {patterns.order, columns, D, nullptr};
}

// Lone rows see the whole mixture, and find their missing values and errors themselves.
View Marginal::see_alone(const Patterns& patterns) {
    for (int64_t j = 0; j < D; j++) all[j] = j;
    columns = all;
    observed = D;
    inferred = 0;
    mixture = whole;
    statistics = {counts, first, scatter};
    return {patterns.order, nullptr, D, &lone};
}

void Marginal::find_covariances() {
    for (int64_t k = 0; k < K; k++) {
        invert_upper(whole.P + k * D * D, D, D, T);
        for (int64_t i = 0; i < D; i++)
            for (int64_t j = 0; j <= i; j++) {
                double t = 0.0;
                for (int64_t m = 0; m <= j; m++) t += T[m * D + i] * T[m * D + j];
                covariances[(k * D + i) * D + j] = covariances[(k * D + j) * D + i] = t;
            }
    }
}

// With the rows of P in the order of the columns, and triangular again, its upper left part is the factor of the observed
// columns' own precision; the lower right part R and the upper right part Q say what they tell of the missing ones:
// B = -R'^-1 Q', C = R'^-1 R^-1.
void Marginal::without_errors(int64_t k) {
    const int64_t d = observed, h = inferred;
    const double* whole_P = whole.P + k * D * D;
    double *own = P + k * d * d, *b = B + k * D * D, *c = C + k * D * D;
    memcpy(R, whole_P, size_t(D * D) * 8);
    if (whole.diagonal) {
        for (int64_t j = 0; j < D; j++) R[j * D + j] = whole_P[columns[j] * (D + 1)];
    } else {
        for (int64_t i = h - 1; i >= 0; i--) move_row(R, D, columns[d + i], d + i, moved);
    }
    for (int64_t i = 0; i < d; i++) memcpy(own + i * d, R + i * D, size_t(d) * 8);
    invert_upper(R + d * (D + 1), D, h, T);
    for (int64_t i = 0; i < h; i++) {
        for (int64_t j = 0; j < d; j++) {
            double t = 0.0;
            for (int64_t m = 0; m <= i; m++) t -= T[m * h + i] * R[j * D + d + m];
            b[i * d + j] = t;
        }
        for (int64_t j = 0; j < h; j++) {
            double t = 0.0;
            for (int64_t m = 0; m <= (i < j ? i : j); m++) t += T[m * h + i] * T[m * h + j];
            c[i * h + j] = t;
        }
    }
}

// With S the component's covariance and A = (S_oo + errors)^-1: B = S_:o A, C = S - B S_o:.
void Marginal::with_errors(int64_t k, const double* errors) {
    const int64_t d = observed;
    double *own = P + k * d * d, *b = B + k * D * D, *c = C + k * D * D;
    for (int64_t i = 0; i < D; i++)
        for (int64_t j = 0; j < D; j++) S[i * D + j] = covariances[(k * D + columns[i]) * D + columns[j]];
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = 0; j < d; j++) R[i * d + j] = S[i * D + j] + errors[columns[i] * D + columns[j]];
    precision_cholesky(R, d, own);
    for (int64_t i = 0; i < D; i++) {
        for (int64_t j = 0; j < d; j++) {
            double t = 0.0;
            for (int64_t m = 0; m <= j; m++) t += S[i * D + m] * own[m * d + j];
            product[i * d + j] = t;  // S_:o P
        }
        for (int64_t j = 0; j < d; j++) {
            double t = 0.0;
            for (int64_t m = j; m < d; m++) t += product[i * d + m] * own[j * d + m];
            b[i * d + j] = t;
        }
    }
    for (int64_t i = 0; i < D; i++)
        for (int64_t j = 0; j < D; j++) {
            double t = S[i * D + j];
            for (int64_t m = 0; m < d; m++) t -= product[i * d + m] * product[j * d + m];
            c[i * D + j] = t;
        }
}

// Add the group's statistics to those of the whole mixture.
void Marginal::add_to(const Statistics& s) {
    const int64_t d = observed, h = inferred, known = D - h;  // columns that are known are the first
    for (int64_t k = 0; k < K; k++) {
        const double *f = first + k * d, *W = scatter + k * d * d, *b = B + k * D * D, *c = C + k * D * D, n = counts[k];
        double *to_first = s.first + k * D, *to = s.scatter + k * D * D;
        s.counts[k] += n;
        for (int64_t i = 0; i < known; i++) to_first[columns[i]] += f[i];
        for (int64_t i = 0; i < h; i++) {
            double t = 0.0;
            for (int64_t m = 0; m < d; m++) t += b[i * d + m] * f[m];
            to_first[columns[known + i]] += t;
            for (int64_t j = 0; j < d; j++) product[i * d + j] = 0.0;
            for (int64_t m = 0; m < d; m++)
                for (int64_t j = 0; j < d; j++) product[i * d + j] += b[i * d + m] * W[m * d + j];
        }
        if (whole.diagonal) {
            for (int64_t i = 0; i < known; i++) to[columns[i] * (D + 1)] += W[i * (d + 1)];
            for (int64_t i = 0; i < h; i++) {
                double t = n * c[i * (h + 1)];
                for (int64_t m = 0; m < d; m++) t += product[i * d + m] * b[i * d + m];
                to[columns[known + i] * (D + 1)] += t;
            }
            continue;
        }
        for (int64_t i = 0; i < known; i++)
            for (int64_t j = 0; j < known; j++) to[columns[i] * D + columns[j]] += W[i * d + j];
        for (int64_t i = 0; i < h; i++) {
            const int64_t at = columns[known + i];
            for (int64_t j = 0; j < known; j++) {
                to[at * D + columns[j]] += product[i * d + j];
                to[columns[j] * D + at] += product[i * d + j];
            }
            for (int64_t j = 0; j <= i; j++) {
                double t = n * c[i * h + j];
                for (int64_t m = 0; m < d; m++) t += product[i * d + m] * b[j * d + m];
                to[at * D + columns[known + j]] += t;
                if (j < i) to[columns[known + j] * D + at] += t;
            }
        }
    }
}

constexpr View EVERYTHING{nullptr, nullptr, 0, nullptr};

// Call read(marginal, view, begin, end) for each group's part of the rows [start, stop), and for that of the lone rows.
template <class Read>
Status each_group(const Patterns& patterns, const Mixture& m, int64_t start, int64_t stop, Read read) {
    Marginal marginal(m, patterns);
    if (marginal.missing()) return NO_MEMORY;
    Status status = DONE;
    for (int64_t group = 0; group <= patterns.n && status == DONE; group++) {
        const int64_t from = patterns.start[group], to = group < patterns.n ? patterns.start[group + 1] : stop;
        const int64_t begin = from > start ? from : start, end = to < stop ? to : stop;
        if (begin < end)
            status = read(marginal, group < patterns.n ? marginal.see(patterns, group) : marginal.see_alone(patterns), begin,
                          end);
    }
    return status;
}

}  // namespace

Status accumulate(const Rows& rows, const Mixture& m, int64_t start, int64_t stop, bool moments, const Statistics& s,
                  Sums& sums) {
    if (!rows.patterns) return kernels().accumulate(rows, EVERYTHING, m, start, stop, moments, s, sums);
    sums = {0.0, 0.0, 0.0};
    memset(s.counts, 0, size_t(m.K) * 8);
    memset(s.first, 0, size_t(m.K * m.D) * 8);
    memset(s.scatter, 0, size_t(m.K * m.D * m.D) * 8);
    return each_group(*rows.patterns, m, start, stop, [&](Marginal& marginal, const View& view, int64_t begin, int64_t end) {
        Sums part;
        const Status status =
            kernels().accumulate(rows, view, marginal.mixture, begin, end, moments, marginal.statistics, part);
        sums.log_likelihood += part.log_likelihood;
        sums.certainty += part.certainty;
        sums.noise += part.noise;
        if (moments) marginal.add_to(s);
        return status;
    });
}

Status log_prob(const Rows& rows, const Mixture& m, int64_t start, int64_t stop, double* out) {
    if (!rows.patterns) return kernels().log_prob(rows, EVERYTHING, m, start, stop, out);
    return each_group(*rows.patterns, m, start, stop, [&](Marginal& marginal, const View& view, int64_t begin, int64_t end) {
        return kernels().log_prob(rows, view, marginal.mixture, begin, end, out);
    });
}

Status log_joint(const Rows& rows, const Mixture& m, int64_t start, int64_t stop, double* out) {
    if (!rows.patterns) return kernels().log_joint(rows, EVERYTHING, m, start, stop, out);
    return each_group(*rows.patterns, m, start, stop, [&](Marginal& marginal, const View& view, int64_t begin, int64_t end) {
        return kernels().log_joint(rows, view, marginal.mixture, begin, end, out);
    });
}
