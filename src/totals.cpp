// Sums over many rows whose digits depend neither on how the rows are shared between threads or machines nor on the order
// in which they are added: rows are summed in chunks, and chunks with twice the precision (Dekker 1971).
#include <string.h>

#include "memory.hpp"
#include "patterns.hpp"

namespace {

// high + low += x + y, without rounding errors but those of low; n numbers.
void add(int64_t n, double* high, double* low, const double* x, const double* y) {
    for (int64_t i = 0; i < n; i++) {
        const double sum = high[i] + x[i], part = sum - high[i];
        const double rest = (high[i] - (sum - part)) + (x[i] - part) + (low[i] + (y ? y[i] : 0.0));
        high[i] = sum + rest;
        low[i] = rest - (high[i] - sum);
    }
}

}  // namespace

// high, low (3 + K (1 + D + D^2),), whose sums are overwritten: the three numbers of Sums, and where `moments` is set the
// statistics, of the rows [start, stop) in chunks of so many.
API int64_t gmm_totals(const Rows* rows, const Mixture* mixture, int64_t start, int64_t stop, int64_t chunk, int64_t moments,
                       double* high, double* low) {
    const int64_t K = mixture->K, D = mixture->D, n = 3 + K * (1 + D + D * D);
    Array<double> own(n);
    if (missing(own)) return NO_MEMORY;
    const Statistics statistics{own + 3, own + 3 + K, own + 3 + K + K * D};
    memset(high, 0, size_t(n) * 8);
    memset(low, 0, size_t(n) * 8);
    for (int64_t begin = start; begin < stop; begin += chunk) {
        const int64_t end = begin + chunk < stop ? begin + chunk : stop;
        Sums sums;
        const Status status = accumulate(*rows, *mixture, begin, end, moments != 0, statistics, sums);
        if (status != DONE) return status;
        own[0] = sums.log_likelihood;
        own[1] = sums.certainty;
        own[2] = sums.noise;
        add(moments ? n : 3, high, low, own, nullptr);
    }
    return DONE;
}

// Add other totals of n numbers to these.
API int64_t gmm_add_totals(int64_t n, double* high, double* low, const double* other_high, const double* other_low) {
    add(n, high, low, other_high, other_low);
    return DONE;
}
