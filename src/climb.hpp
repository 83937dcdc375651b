// One climb of EM from given moments: the iteration, its acceleration and its stopping rule.
//
// The state between two passes over the data is the moments, the flat vector z of expected counts (K,), means (K, D) and
// covariances (K, D, D) that the E-step returned. `maximise` turns them into the parameters of any covariance model, so
// that extrapolating z instead of the parameters serves all models alike.
//
// A row may count as a blob, normal about it with given variances R. Each component's log density is then averaged over the
// blob: it loses tr(S^-1 R) / 2, which `maximise` puts into the log scales, and the scatters gain R a row. With these
// densities it is EM as before, of a likelihood that no component can raise without bound by collapsing.
#pragma once
#include <stdint.h>

#include "covariance.hpp"
#include "kernel.hpp"

constexpr int64_t MEMORY = 3;  // differences that the acceleration remembers

enum Code : int64_t { RUNNING = 0, CONVERGED = 1, EXHAUSTED = 2, DEGENERATE = 3 };

// Logarithm of the prior as the M-step sees it; all zero for maximum likelihood.
struct Penalty {
    const double* concentration;    // (K,) Dirichlet concentration - 1
    const double* location;         // (D,) prior means' offset from the center
    const double* precision;        // (D, D) prior precision of the means
    double rows;                    // that the prior of a covariance is worth
    const double* scatter;          // (D, D) and their scatter; its prior mean where it has a prior itself
    double degrees;                 // of freedom of the scatter given the covariances; 0 where it has no prior
    const double* scale_precision;  // (D, D) inverse of the scale matrix of the scatter's own prior
    const double* floor;            // (D, D) scatter that is added to one with a prior
    double noise;                   // Dirichlet concentration of the noise's weight - 1
};

// Parts that stay as given: flags, and the values where they are set.
struct Fixed {
    const uint8_t* has_weight;      // (K,)
    const double* weights;          // (K,)
    const uint8_t* has_mean;        // (K,)
    const double* offsets;          // (K, D) from the center
    const uint8_t* has_covariance;  // (K,)
    const double* covariances;      // (K, D, D)
};

// What a climb holds fixed.
struct Problem {
    int64_t K, D;
    CovarianceModel model;
    double total;             // sum of the rows' weights
    const double* center;     // (D,) of the table, from which means are offset
    const double* reference;  // (D,) diagonal of the data's own precision factor
    const double* metric;     // (K + K D + K D D,) units of the moments
    const double* row_variance;  // (D,) of the blob that each row is; zero where rows are points
    const double* mean_error;    // (D, D) covariance of the errors of measurement, of a row on average; zero without
    Penalty penalty;
    Fixed fixed;
    double tolerance;  // nats that may be left to gain; 0 never stops
    int64_t max_iterations;
    int64_t noise;  // whether rows may belong to no component; the noise has what the counts lack of the total

    int64_t size() const { return K * (1 + D + D * D); }  // of the moments
};

// How far a climb has come, in nats where not said otherwise.
struct Progress {
    double value;           // log-likelihood plus log prior
    double log_likelihood;  // of rows as blobs, where they are
    double log_prior;       // of the parameters that the next E-step takes
    double certainty;       // sum of the rows' largest log responsibilities
    double gain;            // of the last step
    double remaining;       // that is left to gain
    double rounding;        // that rounding the means may have cost the last step
    int64_t iteration;      // -1 before the first parameters
    int64_t remembered;     // differences; -1 while not even a first residual is known
    int64_t extrapolated;   // whether the last step was
    int64_t quiet;          // successive steps with less than the tolerance left to gain
    int64_t component;      // that has collapsed, or -1
    int64_t code;           // a Code
};

// Parameters, and the moments that they were made from.
struct Step {
    double* log_scale;    // (K,)
    double* offsets;      // (K, D)
    double* P;            // (K, D, D)
    double* weights;      // (K,)
    double* covariances;  // (K, D, D)
    double* z;            // (size,)
};

// What a climb changes, in place.
struct State {
    double* log_scale;    // (K,) as in Mixture, and so
    double* offsets;      // (K, D) are these
    double* P;            // (K, D, D) and these
    double* weights;      // (K,)
    double* covariances;  // (K, D, D)
    double* counts;       // (K,) as in Statistics, of the last E-step, and so
    double* first;        // (K, D) are these
    double* scatter;      // (K, D, D) and these, which the M-step overwrites
    double* z;            // (size,) moments that the parameters were made from
    double* fallback;     // (size,) moments to go on from where an extrapolation fails
    double* last_z;       // (size,) z one accepted step ago
    double* last_f;       // (size,) and its residual
    double* dz;           // (MEMORY, size) differences of z, newest first
    double* df;           // (MEMORY, size) and of the residuals
    double* Wdz;          // (MEMORY, size) and those of z times the metric
    double* metric_counts;      // (K,) of the components that the metric was made of, and
    double* metric_precisions;  // (K, D, D) their precisions, errors included
    Step accepted;        // the last one that was not undone
    double* path;         // (max_iterations + 1,) value after each iteration
    double log_noise;     // as in Mixture: of what the weights leave
    Progress progress;
};

// Where climbs ended.
struct Outcomes {
    Progress* progress;   // (S,)
    double* moments;      // (S, size)
    double* weights;      // (S, K)
    double* offsets;      // (S, K, D)
    double* covariances;  // (S, K, D, D)
};
