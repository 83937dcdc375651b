// Principal axes of covariances: from free matrices, to triangular factors of precisions, and gradients the way back.
#pragma once
#include <stdint.h>

// A frame is Z (D, D - 1) = Q R with orthonormal columns Q and R (D - 1, D - 1) upper triangular of positive diagonal.
// `axes` (D, D) are Q and a column, of either sign, orthogonal to it.
void axes_of_frame(const double* Z, int64_t D, double* axes, double* R);
// P, upper triangular, and the orthogonal O with P O = axes diag(root): P P' is the precision along these axes. (D, D).
void factor_along_axes(const double* axes, const double* root, int64_t D, double* P, double* O);
// C (D, D) = M' dM for M = P O, given the gradient by the upper triangle of P (dP). The gradient by the logarithm of
// root[j] is C[j, j], and the change by a turn of axis j towards i, before units, C[i, j].
void gradient_along_axes(const double* P, const double* O, const double* dP, int64_t D, double* work, double* C);
// Add the gradient by Z, given that by turns of axis j towards i in the lower triangle of `turn` (D, D), and that by R,
// (D - 1, D - 1). `work` has 2 D D.
void pull_back_frame(const double* axes, const double* R, const double* turn, const double* dR, int64_t D, double* work,
                     double* by_frame);
