// The log posterior density of a mixture and its exact gradient in unconstrained coordinates, from one pass of the
// kernel. bayesgmm/native.py mirrors the struct.
#pragma once
#include <stdint.h>

#include "chart.hpp"
#include "kernel.hpp"

// All arrays are C-contiguous and belong to the caller. Nothing here changes, so threads may share one.
struct Density {
    Chart chart;
    Rows rows;                    // no labels
    int64_t N;                    // rows that are read
    int64_t diagonal;             // whether all precisions are diagonal
    const double* concentration;  // (n_weights,) of the weights' Dirichlet prior
    const double* location;       // (D,) of the means' normal prior
    const double* precision;      // (D, D) of the same
    const double* origin;         // (n,) where coordinates u are whitened, theta = origin + factor u; else null
    const float* factor;          // (m, m) lower triangular, n filled up with zeros to m, a multiple of 8; on a cache line.
                                  // In single precision: it only chooses coordinates, and reading it takes long
    // Where n_left_out > 0 the density is that times sum_i exp(log_odds_i) / p(left_out_i | theta).
    Rows left_out;           // no labels; the weights do not count
    const double* log_odds;  // (n_left_out,)
    int64_t n_left_out, n_left_out_read;

    // theta from the coordinates that the density is a function of.
    Status to_theta(const double* x, double* theta) const;
    // Value (nats, without the constant) and gradient at x. Where they are not finite, NOT_FINITE.
    Status evaluate(const double* x, double* gradient, double& value) const;

  private:
    // Where there is noise, the counts (n_weights,) have its own at the end.
    Status likelihood(const Mixture&, const Statistics&, double& value) const;
    Status leave_out(const Mixture&, const Statistics&, double& value) const;
    double log_prior_of_weights(const double* log_weights, const double* counts, double* gradient) const;
    Status at_theta(const double* theta, double* gradient, double& value) const;
};
