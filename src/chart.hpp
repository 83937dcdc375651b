// The free coordinates of a mixture's precisions: Cholesky factors from them, the pullback of a gradient, their prior.
// What the coordinates are is said in bayesgmm/bayes/coordinates.py; bayesgmm/native.py mirrors the struct.
#pragma once
#include <stdint.h>

enum Kind : int64_t { BARTLETT, MARGINAL, CORRELATIONS };         // inverse Wishart, hierarchical, LKJ
enum Ratios : int64_t { NONE, VOLUMES, SQUARES };                 // what the Dirichlet vectors are the ratios of
enum Scales : int64_t { HALF_NORMAL, LOG_NORMAL, EXPONENTIAL };  // prior of standard deviations

// A point theta is the log ratios of the weights, all but the last, the means (K, D), and then, by rows: log squares of Bartlett's
// diagonal (log standard deviations under CORRELATIONS), entries above the diagonal (logits of the partial correlations),
// log ratios, all but the last of each vector, and the frames that the covariances' axes are those of (axes.hpp). With
// frames the squares are precisions along the axes, relative to the prior scale there.
// All arrays are C-contiguous and belong to the caller.
struct Chart {
    int64_t K, D;                        // components, features
    int64_t n_weights;                   // K, or K + 1 where the noise has the last
    Kind kind;
    Ratios ratios;
    Scales scales;                       // of use under CORRELATIONS
    int64_t copies, columns;             // of the squares: K, or 1 that all share; D, or 1 for all features
    int64_t above_copies, off_diagonal;  // of the entries above: K, or 1 that all share; D (D - 1) / 2, or 0
    int64_t n_dirichlet;                 // entries of a vector of ratios
    int64_t frames;                      // 0, or 1 that all share, or K
    double strength;                     // degrees of freedom of the scale matrix's own prior, under MARGINAL
    double slack;                        // standard deviation of a frame's R about the identity
    double floor;                        // share of the scale matrix's mean that is added to it, under MARGINAL
    const double *first, *second;        // (columns,) parameters of the squares' prior, degrees of freedom come first
    const double* dirichlet;             // (n_dirichlet,) concentration of the ratios
    const double* beta;                  // (off_diagonal,) parameter of the partial correlations' beta prior
    const double* U;                     // (D, D) upper triangular: the precision is U A (U A)'
    const double* scale;                 // (D, D) prior scale matrix, of use with frames

    int64_t means() const { return n_weights - 1; }  // where in theta the means start, and so on
    int64_t squares() const { return means() + K * D; }
    int64_t above() const { return squares() + copies * columns; }
    int64_t log_ratios() const { return above() + above_copies * off_diagonal; }
    int64_t n_vectors() const { return ratios == NONE ? 0 : ratios == VOLUMES ? 1 : K; }
    int64_t first_frame() const { return log_ratios() + (ratios == NONE ? 0 : n_vectors() * (n_dirichlet - 1)); }
    int64_t n_dim() const { return first_frame() + frames * D * (D - 1); }

    // Log weights (n_weights,).
    void log_weights(const double* theta, double* out) const;
    // Fill the room for axes; to do before the rest, nothing without frames.
    void find_axes(const double* theta, double* axes) const;
    // Component k's P (D, D), and A (D, D): Bartlett's factor; under CORRELATIONS the covariance's lower one; with frames
    // the turn from P to the axes.
    void factor(const double* theta, int64_t k, const double* axes, double* A, double* P) const;
    // Add the gradient by component k's coordinates, given those by the upper triangle of P (dP) and by log|P| (count);
    // that by axes to the room for these.
    void pull_back(const double* theta, int64_t k, double count, const double* dP, const double* A, const double* P,
                   double* axes, double* work, double* gradient) const;
    // Add the gradient by the frames, given all that by axes; returns the frames' log prior density, without its constant.
    double pull_back_frames(double* axes, double* work, double* gradient) const;
    // Log prior density of the precisions' coordinates, nats, without its constant; its gradient is added.
    double log_prior(const double* theta, double* work, double* gradient) const;
    int64_t room() const { return (copies + 2) * D * D + 3 * D * D; }  // of `work`
    int64_t room_for_axes() const { return frames ? 3 * frames * D * D + 2 * D : 0; }

  private:
    // The room for axes: the axes, R and the gradient by turns of each frame, all (frames, D, D), then the prior scale along
    // each axis (D,), the mean over the frames, and the gradient by its logarithm.
    int64_t frame(int64_t k) const { return frames > 1 ? k : 0; }
    double* R(double* axes, int64_t m) const { return axes + (frames + m) * D * D; }
    double* turns(double* axes, int64_t m) const { return axes + (2 * frames + m) * D * D; }
    double* along(double* axes) const { return axes + 3 * frames * D * D; }
    const double* along(const double* axes) const { return axes + 3 * frames * D * D; }
    void roots_of_precisions(const double* theta, int64_t k, const double* axes, double* root) const;
    void pull_back_along_axes(const double* theta, int64_t k, double count, const double* dP, const double* A,
                              const double* P, double* axes, double* work, double* gradient) const;
    int64_t square(int64_t k, int64_t j) const;  // where the square of component k, row j is; or its first entry above
    int64_t entry(int64_t k) const;
    double log_volume(const double* theta, int64_t k) const;
    void correlated_factor(const double* theta, int64_t k, double* A, double* P) const;
    void pull_back_correlated(const double* theta, int64_t k, double count, const double* dP, const double* A,
                              const double* P, double* work, double* gradient) const;
    double log_prior_of_correlations(const double* theta, double* gradient) const;
    double log_prior_given_sizes(const double* theta, double* gradient) const;
    double log_prior_given_matrix(const double* theta, double* work, double* gradient) const;
    double log_prior_of_ratios(const double* theta, double* gradient) const;
};
