// What reads the data: the structs it is given, and what each level of processor offers. bayesgmm/native.py mirrors the
// structs. All arrays are C-contiguous and belong to the caller.
#pragma once
#include <stdint.h>

#include "api.hpp"

// A mixture, its means as offsets from the center that the rows are taken from; the precision of component k is P_k P_k'.
struct Mixture {
    int64_t K, D;             // components, features
    const double* log_scale;  // (K,) log w_k + log|P_k| - D/2 log 2 pi, nats
    const double* offsets;    // (K, D) means minus the center
    const double* P;          // (K, D, D) upper triangular
    int64_t diagonal;         // whether every P_k is known to be diagonal: then no more of the scatters is filled
    double log_noise;         // log weight of the noise, nats; counts only where the rows have a density of it
};

struct Patterns;  // patterns.hpp

struct Rows {
    const double* X;           // (N, D), D the mixture's
    const double* center;      // (D,) that the mixture's offsets are taken from
    const double* weight;      // (n_weights,)
    int64_t n_weights;         // N, or 1 for a weight that all rows share
    const int64_t* labels;     // (N,) component, -1 where unknown; null where all are unknown
    const double* noise;       // (N,) log density of the noise, nats; null where there is none
    const Patterns* patterns;  // which cells count, and errors; null where all do and there are none
};

// What is read of rows that are looked at alone: their missing values are NaN in X, their errors are these.
struct Lone {
    const double* errors;       // (n_errors, D) variances or (n_errors, D, D) covariances
    int64_t n_errors;           // N, 1 for errors that all rows share, 0 where values are exact
    int64_t correlated;         // whether errors are covariances
    const double* covariances;  // (K, D, D) of the components
};

// Where a kernel finds the rows it is told to read: row i of a range is order[i], feature j in column columns[j] of X.
struct View {
    const int64_t* order;    // null: rows in their order, and all columns in theirs
    const int64_t* columns;  // (D,); null where all of them are read
    int64_t width;           // columns of X
    const Lone* lone;        // null: all values are there and exact, or their errors part of the mixture
};

// Expected statistics about the components' own means, summed over weighted rows.
struct Statistics {
    double* counts;   // (K,)
    double* first;    // (K, D) first moments, in the data's units
    double* scatter;  // (K, D, D)
};

struct Sums {
    double log_likelihood;  // nats
    double certainty;       // sum of the rows' largest log responsibilities, nats
    double noise;           // expected count of the noise
};

// Mixtures, one for each of many draws, eight side by side; the last eight are filled up with copies of the last draw.
struct Draws {
    int64_t K, D, groups;  // components, features, eights of draws
    const double* center;  // (D,)
    const double* values;  // (groups, K, 1 + D + D(D+1)/2, 8) log_scale as in Mixture, means minus the center, columns of P
};

// The columns that some rows have values in, and the covariances of their errors.
struct Seen {
    int64_t n;
    const int64_t* columns;  // (n,) ascending
    const double* errors;    // (D, D), D the draws'; null where the values are exact
};

// What some rows are under the draws, whose number is rounded up to `width`, 8 groups or more.
struct Memberships {
    double* responsibilities;  // (n, K, width)
    double* log_prob;          // (n, width) nats
    double* entropy;           // (n, width) of the responsibilities, nats
    int64_t width;
};

// The kernels of one level. Rows are [start, stop); their patterns do not count here, but in the functions of the same
// names in patterns.hpp.
struct Kernels {
    const char* level;
    // Sums and, where `moments` is set, statistics of the rows; both are overwritten.
    Status (*accumulate)(const Rows&, const View&, const Mixture&, int64_t start, int64_t stop, bool moments,
                         const Statistics&, Sums&);
    // out (N,): log mixture densities of the rows, nats; only their entries are written. Weights and labels do not count.
    Status (*log_prob)(const Rows&, const View&, const Mixture&, int64_t start, int64_t stop, double* out);
    // out (N, K): log w_k + log N(x | mean_k, covariance_k) of the rows, nats.
    Status (*log_joint)(const Rows&, const View&, const Mixture&, int64_t start, int64_t stop, double* out);
    // out: of the rows' scores, whose parts are r_k T_k (see second_order.py), for k in 0..K-1 and l in 0..k the block of
    // products sum w r_k r_l T_k T_l', which for l = k is sum w r_k (1 - r_k) T_k T_k' instead; and where `scores` is set
    // then sum w r_k^2 T_k T_k' for each k. Otherwise rows that certainly belong to a component are left out. Rows have
    // neither labels nor noise.
    Status (*products)(const Rows&, const View&, const Mixture&, int64_t start, int64_t stop, bool scores, double* out);
    // low, high (D,): least and largest entry of each column of X (N, D); NaN where an entry is not finite.
    Status (*ranges)(const double* X, int64_t D, int64_t start, int64_t stop, double* low, double* high);
    // The n rows of X (n, D) under all draws.
    Status (*memberships)(const double* X, int64_t n, const Draws&, const Memberships&);
    // The same of rows X (n, seen.n), with other values of the draws: log weights, means minus the center, and columns of
    // the upper triangles of the covariances.
    Status (*memberships_seen)(const double* X, int64_t n, const Draws&, const Seen&, const Memberships&);
    // Sum of exp(x_i) for x_i <= 0; x is aligned, has room for a multiple of 64 entries and is overwritten.
    double (*sum_exp)(double* x, int64_t n);
    // out = L x, and L'x. L (n, n) is lower triangular; n is a multiple of 8 and all arrays start on a cache line.
    void (*lower_times)(const float* L, int64_t n, const double* x, double* out);
    void (*lower_transposed_times)(const float* L, int64_t n, const double* x, double* out);
    // Nothing but multiply-adds, as fast as there are: how many. For benchmarks to measure themselves by.
    int64_t (*multiply_adds)(int64_t times);
};

const Kernels& kernels();  // of the best level that this processor has, or of the one that was asked for
