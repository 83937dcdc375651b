// Rows with missing values, or measured with errors: in groups that share which values are there and the errors, or alone.
#pragma once
#include <stdint.h>

#include "kernel.hpp"

struct Patterns {
    int64_t D, n, n_rows;       // columns of the table, groups, rows of the order
    const int64_t* order;       // rows with a value, group after group, then the lone ones
    const int64_t* start;       // (n + 1,) where each group begins in the order, and where the lone rows do
    const int64_t* n_observed;  // (n,) columns that have values
    const int64_t* columns;     // (n, D) these columns, then the others, each ascending
    const double* errors;       // (n, D, D) covariances of the errors, of observed columns only; null where there are none
    const double* row_errors;   // (n_row_errors, D) variances or (.., D, D) covariances that lone rows find theirs in
    int64_t n_row_errors;       // rows of the table, 1 for errors that all rows share, 0 where there are none
    int64_t correlated;         // whether they are covariances
};

// The kernels of any rows. Rows with patterns are [start, stop) of their order; those without a value are not in it.
Status accumulate(const Rows&, const Mixture&, int64_t start, int64_t stop, bool moments, const Statistics&, Sums&);
Status log_prob(const Rows&, const Mixture&, int64_t start, int64_t stop, double* out);
Status log_joint(const Rows&, const Mixture&, int64_t start, int64_t stop, double* out);
