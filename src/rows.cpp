// The kernels as Python calls them.
#include "patterns.hpp"

API int64_t gmm_sizeof_mixture() { return sizeof(Mixture); }
API int64_t gmm_sizeof_rows() { return sizeof(Rows); }
API int64_t gmm_sizeof_patterns() { return sizeof(Patterns); }
API int64_t gmm_sizeof_statistics() { return sizeof(Statistics); }
API int64_t gmm_sizeof_sums() { return sizeof(Sums); }
API int64_t gmm_sizeof_draws() { return sizeof(Draws); }
API int64_t gmm_sizeof_seen() { return sizeof(Seen); }
API int64_t gmm_sizeof_memberships() { return sizeof(Memberships); }

API int64_t gmm_accumulate(const Rows* rows, const Mixture* mixture, int64_t start, int64_t stop, int64_t moments,
                           const Statistics* statistics, Sums* sums) {
    return accumulate(*rows, *mixture, start, stop, moments != 0, *statistics, *sums);
}

API int64_t gmm_log_prob(const Rows* rows, const Mixture* mixture, int64_t start, int64_t stop, double* out) {
    return log_prob(*rows, *mixture, start, stop, out);
}

API int64_t gmm_log_joint(const Rows* rows, const Mixture* mixture, int64_t start, int64_t stop, double* out) {
    return log_joint(*rows, *mixture, start, stop, out);
}

API int64_t gmm_ranges(const double* X, int64_t D, int64_t start, int64_t stop, double* low, double* high) {
    return kernels().ranges(X, D, start, stop, low, high);
}

API int64_t gmm_memberships(const double* X, int64_t n, const Draws* draws, const Memberships* out) {
    return kernels().memberships(X, n, *draws, *out);
}

API int64_t gmm_memberships_seen(const double* X, int64_t n, const Draws* draws, const Seen* seen, const Memberships* out) {
    return kernels().memberships_seen(X, n, *draws, *seen, *out);
}

API int64_t gmm_multiply_adds(int64_t times) { return kernels().multiply_adds(times); }
