// Products of the rows' scores, which the Hessian of the log-likelihood is made of (Louis 1982).
#include <string.h>

#include "kernel.hpp"
#include "memory.hpp"

API int64_t gmm_add_totals(int64_t n, double* high, double* low, const double* other_high, const double* other_low);

// high, low (n,), whose sums are overwritten: the products of the rows [start, stop), which are complete and exact, without
// labels or noise; n is theirs. They are summed in chunks of so many, and chunks with twice the precision.
API int64_t gmm_products(const Rows* rows, const Mixture* mixture, int64_t start, int64_t stop, int64_t chunk, int64_t scores,
                         int64_t n, double* high, double* low) {
    Array<double> own(n), zero(n, 0.0);
    if (missing(own, zero)) return NO_MEMORY;
    memset(high, 0, size_t(n) * 8);
    memset(low, 0, size_t(n) * 8);
    for (int64_t begin = start; begin < stop; begin += chunk) {
        const int64_t end = begin + chunk < stop ? begin + chunk : stop;
        const View everything{nullptr, nullptr, 0, nullptr};
        const Status status = kernels().products(*rows, everything, *mixture, begin, end, scores != 0, own);
        if (status != DONE) return status;
        gmm_add_totals(n, high, low, own, zero);
    }
    return DONE;
}
