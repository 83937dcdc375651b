// From a component's expected statistics to the gradient of the log-likelihood (Fisher's identity).
#pragma once
#include <stdint.h>

// by_mean (D,), and the upper triangle of by_P (D, D): by the entries of P where log|P| stays as it is, whose share is the
// component's count. `first` (D,) and `scatter` (D, D) are its statistics; room (D,) is overwritten.
void by_mean_and_precision(int64_t D, const double* P, const double* first, const double* scatter, double* room,
                           double* by_mean, double* by_P);
