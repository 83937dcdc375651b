// The E-step for one level of processor. Compiled several times, with LEVEL its namespace and WIDTH doubles a register.
#include "kernel.hpp"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifndef LEVEL
#define LEVEL native
#endif
#ifndef WIDTH
#if defined(__AVX512F__)
#define WIDTH 8
#elif defined(__AVX__)
#define WIDTH 4
#else
#define WIDTH 2
#endif
#endif
// What a register file holds decides the tiles: nine sums in 16 registers, 25 in 32.
#if defined(__AVX512F__) || defined(__aarch64__)
#define MANY_REGISTERS 1
#else
#define MANY_REGISTERS 0
#endif

#define STRING_(x) #x
#define STRING(x) STRING_(x)

namespace LEVEL {
namespace {
#include "lanes.hpp"
#include "memory.hpp"

constexpr double LOWEST = -1e300;  // stands for log 0 where an infinity would turn into NaN
constexpr double LOG_2PI = 1.8378770664093454836;
constexpr int TILE = MANY_REGISTERS ? 5 : 3;
constexpr int64_t CACHE = 64000;  // bytes of a block: most of it stays in the L1 cache, and
constexpr int64_t LEAST = 128, MOST = 512;  // rows of it, in
constexpr int64_t GROUP = 32;  // that distances are taken for at once
constexpr int64_t PAD = 8;  // between lines, or a row's features would compete for the same few cache lines

// A block of rows, feature by feature: every line has B entries, one a row, and starts on a cache line.
struct Block {
    int64_t B, width;
    double *memory, *log_prob, *weight, *certainty, *joint, *x, *d;

    double* joint_of(int64_t k) const { return joint + k * width; }
    double* x_of(int64_t j) const { return x + j * width; }
    double* d_of(int64_t j) const { return d + j * width; }
};

int64_t block_rows(int64_t n, int64_t lines) {
    int64_t most = CACHE / (8 * lines);
    most = most < LEAST ? LEAST : most > MOST ? MOST : most;
    int64_t blocks = (n + most - 1) / most;
    if (blocks < 1) blocks = 1;
    int64_t rows = (n + blocks - 1) / blocks;
    return ((rows < 1 ? 1 : rows) + GROUP - 1) / GROUP * GROUP;
}

// Joint densities have a line for each component, and one for the noise.
int64_t n_lines(const Mixture& m, int64_t joints) { return 3 + joints + 2 * m.D; }

Block block_in(const Mixture& m, int64_t joints, int64_t B, double* memory) {
    int64_t w = B + PAD;
    return {B, w, memory, memory, memory + w, memory + 2 * w, memory + 3 * w, memory + (3 + joints) * w,
            memory + (3 + joints + m.D) * w};
}

template <int DD>
void load_rows(const Rows& rows, const View& view, int64_t D_, int64_t begin, int64_t end, const Block& b) {
    const int64_t D = DD ? DD : D_, n = end - begin;
    const double* __restrict X = rows.X + begin * D;
    if (view.order) {
        for (int64_t i = 0; i < n; i++) {
            const double* x = rows.X + view.order[begin + i] * view.width;
            for (int64_t j = 0; j < D; j++) b.x[j * b.width + i] = x[view.columns[j]] - rows.center[view.columns[j]];
        }
    } else if constexpr (DD > 0) {
        for (int64_t i = 0; i < n; i++)
            UNROLL for (int j = 0; j < DD; j++) b.x[j * b.width + i] = X[i * D + j] - rows.center[j];
    } else {
        for (int64_t j = 0; j < D; j++) {
            const double c = rows.center[j];
            double* __restrict x = b.x_of(j);
            for (int64_t i = 0; i < n; i++) x[i] = X[i * D + j] - c;
        }
    }
    for (int64_t j = 0; j < D; j++)
        for (int64_t i = n; i < b.B; i++) b.x[j * b.width + i] = 0.0;
}

INLINE void put_joint(const Block& b, double* line, int64_t k, int64_t at, lanes q, double scale) {
    q = maximum(splat(scale) - 0.5 * q, splat(LOWEST));
    store(line + at, q);
    store(b.log_prob + at, k ? maximum(load(b.log_prob + at), q) : q);
}

// Log joint densities, and in log_prob the largest of them. With D known all of a row's arithmetic is in registers.
template <int D>
void joint_small(const Mixture& m, const Block& b) {
    constexpr int R = D <= 4 ? 4 : 2;  // vectors of rows at once
    for (int64_t k = 0; k < m.K; k++) {
        const double *P = m.P + k * D * D, *mean = m.offsets + k * D;
        double* line = b.joint_of(k);
        for (int64_t at = 0; at < b.B; at += R * WIDTH) {
            lanes d[R][D], q[R];
UNROLL for (int r = 0; r < R; r++) {
                q[r] = lanes{};
UNROLL for (int j = 0; j < D; j++) d[r][j] = load(b.x_of(j) + at + r * WIDTH) - mean[j];
            }
            if (m.diagonal) {
UNROLL for (int j = 0; j < D; j++)
UNROLL for (int r = 0; r < R; r++) {
                        lanes u = P[j * D + j] * d[r][j];
                        q[r] += u * u;
                    }
            } else {
UNROLL for (int j = 0; j < D; j++) {
                    lanes u[R];
UNROLL for (int r = 0; r < R; r++) u[r] = P[j] * d[r][0];
UNROLL for (int i = 1; i <= j; i++)
UNROLL for (int r = 0; r < R; r++) u[r] += P[i * D + j] * d[r][i];
UNROLL for (int r = 0; r < R; r++) q[r] += u[r] * u[r];
                }
            }
UNROLL for (int r = 0; r < R; r++) put_joint(b, line, k, at + r * WIDTH, q[r], m.log_scale[k]);
        }
    }
}

// The same for any D: R vectors of rows and C columns of P at a time, whose R C sums stay in registers.
template <int C, int R>
NOINLINE void columns(const double* P, const double* d, int64_t D, int64_t j, bool diagonal, lanes* q) {
    lanes u[C][R];
UNROLL for (int c = 0; c < C; c++)
UNROLL for (int r = 0; r < R; r++) u[c][r] = lanes{};
    for (int64_t i = diagonal ? j : 0; i <= j; i++) {
        lanes x[R];
UNROLL for (int r = 0; r < R; r++) x[r] = load(d + i * GROUP + r * WIDTH);
UNROLL for (int c = 0; c < C; c++) {
            double p = P[i * D + j + c];
UNROLL for (int r = 0; r < R; r++) u[c][r] += p * x[r];
        }
    }
UNROLL for (int i = 1; i < C; i++) {  // the triangle at the end
        lanes x[R];
UNROLL for (int r = 0; r < R; r++) x[r] = load(d + (j + i) * GROUP + r * WIDTH);
UNROLL for (int c = i; c < C; c++) {
            double p = P[(j + i) * D + j + c];
UNROLL for (int r = 0; r < R; r++) u[c][r] += p * x[r];
        }
    }
UNROLL for (int c = 0; c < C; c++)
UNROLL for (int r = 0; r < R; r++) q[r] += u[c][r] * u[c][r];
}

void joint_large(const Mixture& m, const Block& b) {
    constexpr int R = 4, C = MANY_REGISTERS ? 4 : 2;
    const int64_t D = m.D;
    for (int64_t k = 0; k < m.K; k++) {
        const double *P = m.P + k * D * D, *mean = m.offsets + k * D;
        double* line = b.joint_of(k);
        double* d = b.d;
        for (int64_t group = 0; group < b.B; group += GROUP) {
            for (int64_t j = 0; j < D; j++)
UNROLL for (int r = 0; r < GROUP; r += WIDTH) store(d + j * GROUP + r, load(b.x_of(j) + group + r) - mean[j]);
#pragma GCC unroll 1
            for (int64_t part = 0; part < GROUP; part += R * WIDTH) {
                lanes q[R];
                for (int r = 0; r < R; r++) q[r] = lanes{};
                int64_t j = 0;
                if (m.diagonal) {
                    for (; j < D; j++) columns<1, R>(P, d + part, D, j, true, q);
                } else {
                    for (; j + C <= D; j += C) columns<C, R>(P, d + part, D, j, false, q);
                    if (D - j == 3) columns<3, R>(P, d + part, D, j, false, q);
                    if (D - j == 2) columns<2, R>(P, d + part, D, j, false, q);
                    if (D - j == 1) columns<1, R>(P, d + part, D, j, false, q);
                }
                for (int r = 0; r < R; r++) put_joint(b, line, k, group + part + r * WIDTH, q[r], m.log_scale[k]);
            }
        }
    }
}

// Joint densities become weighted responsibilities; their maximum, the log-sum-exp; certainty, log of the largest.
//
// Noise has line K. Densities are taken relative to its own, which so needs no exponential, or where a component is e^50
// times as dense, to one that is e^50 times less dense than the component; then noise adds no digit to the sum. Returns the
// sum of its weighted responsibilities.
template <bool NOISE>
double normalise(int64_t K, const Block& b) {
    constexpr int R = MANY_REGISTERS ? 4 : 2;
    constexpr double FAR = 50.0;
    lanes count = lanes{};
    for (int64_t at = 0; at < b.B; at += R * WIDTH) {
        lanes largest[R], from[R], of_noise[R], total[R], log[R], r[R];
        EACH largest[i] = from[i] = load(b.log_prob + at + i * WIDTH);
        EACH total[i] = lanes{};
        double* line = b.joint + at;
        if (NOISE) EACH {
            const lanes noise = load(line + K * b.width + i * WIDTH);
            from[i] = maximum(largest[i] - FAR, noise);
            of_noise[i] = from[i] > noise ? lanes{} : splat(1.0);
            largest[i] = maximum(largest[i], noise) - from[i];
        }
        for (int64_t k = 0; k < K; k++, line += b.width) {
            EACH r[i] = load(line + i * WIDTH) - from[i];
            exp_bounded<R>(r);
            EACH store(line + i * WIDTH, r[i]);
            EACH total[i] += r[i];
        }
        if (NOISE) EACH total[i] += of_noise[i];
        log_above_one<R>(total, log);
        EACH r[i] = load(b.weight + at + i * WIDTH) / total[i];
        if (NOISE) EACH count += of_noise[i] * r[i];
        EACH store(b.certainty + at + i * WIDTH, NOISE ? largest[i] - log[i] : -log[i]);
        EACH store(b.log_prob + at + i * WIDTH, from[i] + log[i]);
        line = b.joint + at;
        for (int64_t k = 0; k < K; k++, line += b.width) EACH store(line + i * WIDTH, load(line + i * WIDTH) * r[i]);
    }
    return sum(count);
}

INLINE double dot(const double* a, const double* b, int64_t n) {
    lanes s = lanes{}, t = lanes{};
    for (int64_t i = 0; i < n; i += 2 * WIDTH) {
        s += load(a + i) * load(b + i);
        t += load(a + i + WIDTH) * load(b + i + WIDTH);
    }
    return sum(s + t);
}

// Sums of a block's tiles lie packed, N to a tile in the order of its entries, until `unpack`: adding to them one by one
// where they belong would cost as much as the multiply-adds of a short block.
constexpr int64_t room_for(int64_t n) { return (n + 7) / 8 * 8; }

template <int N>
INLINE void add_sums(lanes* s, double* packed) {  // both have room for a multiple of WIDTH
    UNROLL for (int i = 0; i < N; i += WIDTH) store(packed + i, load(packed + i) + totals(s + i));
}

// Add sum_b r_b (1, x - mean, (x - mean) x') of a block for each component, the lower triangle of the last: with D
// known all sums of a component stay in registers.
template <int D, bool DIAGONAL>
void moments_small(const Mixture& m, const Block& b, double* packed) {
    constexpr int T = DIAGONAL ? D : D * (D + 1) / 2, N = 1 + D + T, ROOM = room_for(N);
    for (int64_t k = 0; k < m.K; k++, packed += ROOM) {
        const double *mean = m.offsets + k * D, *r = b.joint_of(k);
        lanes s[ROOM];
        UNROLL for (int n = 0; n < ROOM; n++) s[n] = lanes{};
        for (int64_t at = 0; at < b.B; at += WIDTH) {
            lanes weight = load(r + at), x[D];
            s[0] += weight;
            UNROLL for (int j = 0; j < D; j++) x[j] = load(b.x_of(j) + at);
            int n = 1 + D;
            UNROLL for (int i = 0; i < D; i++) {
                lanes e = weight * (x[i] - mean[i]);
                s[1 + i] += e;
                UNROLL for (int j = DIAGONAL ? i : 0; j <= i; j++) s[n++] += e * x[j];
            }
        }
        add_sums<N>(s, packed);
    }
}

// Features [i, i + A) against themselves: their first moments and the lower triangle of their scatter. Leaves
// r (x - mean) of them in `b.d_of`, for the tiles to the left.
template <int A, bool DIAGONAL>
NOINLINE void diagonal_tile(const Block& b, const double* r, const double* mean, int64_t i, double* packed) {
    constexpr int N = DIAGONAL ? 2 * A : A + A * (A + 1) / 2, ROOM = room_for(N);
    lanes s[ROOM];
    UNROLL for (int n = 0; n < ROOM; n++) s[n] = lanes{};
    for (int64_t at = 0; at < b.B; at += WIDTH) {
        const lanes weight = load(r + at);
        lanes x[A], e[A];
        int n = A;
        UNROLL for (int a = 0; a < A; a++) {
            x[a] = load(b.x_of(i + a) + at);
            e[a] = weight * (x[a] - mean[i + a]);
            s[a] += e[a];
            UNROLL for (int c = DIAGONAL ? a : 0; c <= a; c++) s[n++] += e[a] * x[c];
            if (!DIAGONAL) store(b.d_of(a) + at, e[a]);
        }
    }
    add_sums<N>(s, packed);
}

// A features, whose r (x - mean) lie in `b.d_of`, against features [j, j + C): all A C sums stay in registers.
template <int A, int C>
NOINLINE void tile(const Block& b, int64_t j, double* packed) {
    constexpr int N = A * C, ROOM = room_for(N), U = N >= 8 ? 1 : 2;  // vectors of rows at once
    lanes s[U][ROOM];
    UNROLL for (int u = 0; u < U; u++)
        UNROLL for (int n = 0; n < ROOM; n++) s[u][n] = lanes{};
    const double *e = b.d, *x = b.x_of(j);
    for (int64_t at = 0; at < b.B; at += U * WIDTH)
        UNROLL for (int u = 0; u < U; u++) {
            lanes y[C];
            UNROLL for (int c = 0; c < C; c++) y[c] = load(x + c * b.width + at + u * WIDTH);
            UNROLL for (int a = 0; a < A; a++) {
                const lanes r = load(e + a * b.width + at + u * WIDTH);
                UNROLL for (int c = 0; c < C; c++) s[u][a * C + c] += r * y[c];
            }
        }
    if (U == 2)
        UNROLL for (int n = 0; n < N; n++) s[0][n] += s[U - 1][n];
    add_sums<N>(s[0], packed);
}

// Features come in parts of about the same size, TILE or one or two fewer; part p starts at start(p).
struct Parts {
    int64_t D, n;

    explicit Parts(int64_t D) : D(D), n((D + TILE - 1) / TILE) {}
    int64_t start(int64_t p) const { return p * (D / n) + (p < D % n ? p : D % n); }
    int64_t size(int64_t p) const { return D / n + (p < D % n); }
};

// The scatter's rows of part p, of A features, tile by tile; returns where the next part's sums go.
template <int A, bool DIAGONAL>
double* moments_of_part(const Block& b, const double* r, const double* mean, const Parts& parts, int64_t p,
                        double* packed) {
    diagonal_tile<A, DIAGONAL>(b, r, mean, parts.start(p), packed);
    packed += room_for(DIAGONAL ? 2 * A : A + A * (A + 1) / 2);
    for (int64_t q = 0; !DIAGONAL && q < p; q++) {
        const int64_t j = parts.start(q), C = parts.size(q);
        if (C == TILE) tile<A, TILE>(b, j, packed);
        if (C == TILE - 1) tile<A, TILE - 1>(b, j, packed);
        if (C == TILE - 2) tile<A, TILE - 2>(b, j, packed);
        packed += room_for(A * C);
    }
    return packed;
}

template <bool DIAGONAL>
void moments_large(const Mixture& m, const Block& b, double* packed) {
    const Parts parts(m.D);
    for (int64_t k = 0; k < m.K; k++) {
        const double *mean = m.offsets + k * m.D, *r = b.joint_of(k);
        lanes n[WIDTH] = {};
        for (int64_t at = 0; at < b.B; at += WIDTH) n[0] += load(r + at);
        add_sums<1>(n, packed);
        packed += room_for(1);
        for (int64_t p = 0; p < parts.n; p++) {
            const int64_t A = parts.size(p);
            if (A == TILE) packed = moments_of_part<TILE, DIAGONAL>(b, r, mean, parts, p, packed);
            if (A == TILE - 1) packed = moments_of_part<TILE - 1, DIAGONAL>(b, r, mean, parts, p, packed);
            if (A == TILE - 2) packed = moments_of_part<TILE - 2, DIAGONAL>(b, r, mean, parts, p, packed);
        }
    }
}

// Where the packed sums belong; without statistics only how many there are.
template <int D, bool DIAGONAL>
int64_t unpack_small(const Mixture& m, const double* packed, const Statistics* s) {
    constexpr int N = 1 + D + (DIAGONAL ? D : D * (D + 1) / 2), ROOM = room_for(N);
    for (int64_t k = 0; s && k < m.K; k++, packed += ROOM) {
        s->counts[k] = packed[0];
        int n = 1 + D;
        for (int i = 0; i < D; i++) {
            s->first[k * D + i] = packed[1 + i];
            for (int j = DIAGONAL ? i : 0; j <= i; j++) s->scatter[(k * D + i) * D + j] = packed[n++];
        }
    }
    return m.K * ROOM;
}

int64_t unpack_large(const Mixture& m, const double* packed, const Statistics* s) {
    const int64_t D = m.D;
    const Parts parts(D);
    int64_t at = 0;
    for (int64_t k = 0; k < m.K; k++) {
        double* W = s ? s->scatter + k * D * D : nullptr;
        if (s) s->counts[k] = packed[at];
        at += room_for(1);
        for (int64_t p = 0; p < parts.n; p++) {
            const int64_t A = parts.size(p), i = parts.start(p);
            for (int64_t a = 0, n = A; s && a < A; a++) {
                s->first[k * D + i + a] = packed[at + a];
                for (int64_t c = m.diagonal ? a : 0; c <= a; c++) W[(i + a) * D + i + c] = packed[at + n++];
            }
            at += room_for(m.diagonal ? 2 * A : A + A * (A + 1) / 2);
            for (int64_t q = 0; !m.diagonal && q < p; q++) {
                const int64_t C = parts.size(q), j = parts.start(q);
                for (int64_t n = 0; s && n < A * C; n++) W[(i + n / C) * D + j + n % C] = packed[at + n];
                at += room_for(A * C);
            }
        }
    }
    return at;
}

struct Steps {
    void (*load)(const Rows&, const View&, int64_t, int64_t, int64_t, const Block&);
    void (*joint)(const Mixture&, const Block&);
    void (*moments)(const Mixture&, const Block&, double*);
    int64_t (*unpack)(const Mixture&, const double*, const Statistics*);
};

template <int D, bool JOINT, bool MOMENTS>
Steps steps_of(bool diagonal) {
    Steps s{load_rows<D>, joint_large, diagonal ? moments_large<true> : moments_large<false>, unpack_large};
    if constexpr (JOINT) s.joint = joint_small<D>;
    if constexpr (MOMENTS) {
        s.moments = diagonal ? moments_small<D, true> : moments_small<D, false>;
        s.unpack = diagonal ? unpack_small<D, true> : unpack_small<D, false>;
    }
    return s;
}

Steps steps_for(const Mixture& m) {
    switch (m.D) {
        case 1: return steps_of<1, true, true>(m.diagonal);
        case 2: return steps_of<2, true, true>(m.diagonal);
        case 3: return steps_of<3, true, true>(m.diagonal);
        case 4: return steps_of<4, true, (MANY_REGISTERS > 0)>(m.diagonal);
        case 5: return steps_of<5, true, (MANY_REGISTERS > 0)>(m.diagonal);
        case 6: return steps_of<6, true, false>(m.diagonal);
        case 7: return steps_of<7, true, false>(m.diagonal);
        case 8: return steps_of<8, true, false>(m.diagonal);
        case 9: return steps_of<9, (MANY_REGISTERS > 0), false>(m.diagonal);
        case 10: return steps_of<10, (MANY_REGISTERS > 0), false>(m.diagonal);
    }
    return steps_of<0, false, false>(m.diagonal);
}

// A block of rows in memory of its own.
struct Work {
    const Rows& rows;
    const View& view;
    const Mixture& m;
    const int64_t joints, B;
    Array<double> memory;
    Block b;

    Work(const Rows& rows, const View& view, const Mixture& m, int64_t n)
        : rows(rows), view(view), m(m), joints(m.K + (rows.noise != nullptr)), B(block_rows(n, n_lines(m, joints))),
          memory(n_lines(m, joints) * (B + PAD)), b(block_in(m, joints, B, memory)) {}

    int64_t row(int64_t i) const { return view.order ? view.order[i] : i; }

    // The noise's line, as of one more component.
    void add_noise(int64_t begin, int64_t n) {
        double* line = b.joint_of(m.K);
        if (view.order)
            for (int64_t i = 0; i < n; i++) line[i] = rows.noise[view.order[begin + i]];
        else
            memcpy(line, rows.noise + begin, size_t(n) * 8);
        for (int64_t i = n; i < b.B; i++) line[i] = LOWEST;
        for (int64_t i = 0; i < b.B; i += WIDTH)
            store(line + i, maximum(load(line + i) + m.log_noise, splat(LOWEST)));
    }

    // Weighted responsibilities and densities of the block, once its lines are filled; the sum of the noise's.
    double normalise() const { return rows.noise ? LEVEL::normalise<true>(m.K, b) : LEVEL::normalise<false>(m.K, b); }

    // Rows of a known component have no other, and are no noise.
    void set_known(int64_t begin, int64_t n) {
        for (int64_t i = 0; i < n; i++) {
            const int64_t label = rows.labels[row(begin + i)];
            if (label < 0) continue;
            for (int64_t k = 0; k < joints; k++) {
                double& joint = b.joint_of(k)[i];
                if (k == label)
                    b.log_prob[i] = joint;
                else
                    joint = LOWEST;
            }
        }
    }
};

// The scatters so far have one factor from the mean and the other from the center; the lower triangle becomes both.
void about_means(const Mixture& m, const Statistics& s) {
    const int64_t D = m.D;
    for (int64_t k = 0; k < m.K; k++) {
        double* W = s.scatter + k * D * D;
        for (int64_t i = 0; i < D; i++)
            for (int64_t j = m.diagonal ? i : 0; j <= i; j++) {
                W[i * D + j] -= s.first[k * D + i] * m.offsets[k * D + j];
                W[j * D + i] = W[i * D + j];
            }
    }
}

// Rows that see the same mixture.
struct Alike : Work {
    const Steps steps;

    Alike(const Rows& rows, const View& view, const Mixture& m, int64_t n, bool)
        : Work(rows, view, m, n), steps(steps_for(m)) {}

    bool no_memory() const { return memory.missing(); }
    int64_t n_packed() const { return steps.unpack(m, nullptr, nullptr); }
    void joint(int64_t begin, int64_t end) {
        steps.load(rows, view, m.D, begin, end, b);
        steps.joint(m, b);
        if (rows.noise) add_noise(begin, end - begin);
    }
    void moments(double* packed) { steps.moments(m, b, packed); }
    Status unpack(const double* packed, const Statistics& s) const {
        steps.unpack(m, packed, &s);
        about_means(m, s);
        return DONE;
    }
};

#include "filled.hpp"
#include "own_errors.hpp"
#include "products.hpp"

// The functions of the table for one kind of rows.

template <class Kind>
Status accumulate(const Rows& rows, const View& view, const Mixture& m, int64_t start, int64_t stop, bool moments,
                  const Statistics& s, Sums& sums) {
    Kind w(rows, view, m, stop - start, moments);
    const Block& b = w.b;
    Array<double> packed(moments ? w.n_packed() : 0, 0.0);
    if (w.no_memory() || packed.missing()) return NO_MEMORY;
    sums = {0.0, 0.0, 0.0};
    for (int64_t begin = start; begin < stop; begin += w.B) {
        const int64_t n = (begin + w.B < stop ? begin + w.B : stop) - begin;
        for (int64_t i = 0; i < n; i++) b.weight[i] = rows.weight[rows.n_weights == 1 ? 0 : w.row(begin + i)];
        for (int64_t i = n; i < w.B; i++) b.weight[i] = 0.0;
        w.joint(begin, begin + n);
        if (rows.labels) w.set_known(begin, n);
        sums.noise += w.normalise();
        sums.log_likelihood += dot(b.log_prob, b.weight, w.B);
        sums.certainty += dot(b.certainty, b.weight, w.B);
        if (moments) w.moments(packed);
    }
    memset(s.counts, 0, size_t(m.K) * 8);
    memset(s.first, 0, size_t(m.K * m.D) * 8);
    memset(s.scatter, 0, size_t(m.K * m.D * m.D) * 8);
    return moments ? w.unpack(packed, s) : DONE;
}

template <class Kind>
Status log_prob(const Rows& rows, const View& view, const Mixture& m, int64_t start, int64_t stop, double* out) {
    Kind w(rows, view, m, stop - start, false);
    if (w.no_memory()) return NO_MEMORY;
    for (int64_t i = 0; i < w.B; i++) w.b.weight[i] = 1.0;
    for (int64_t begin = start; begin < stop; begin += w.B) {
        const int64_t end = begin + w.B < stop ? begin + w.B : stop;
        w.joint(begin, end);
        w.normalise();
        if (view.order)
            for (int64_t i = begin; i < end; i++) out[view.order[i]] = w.b.log_prob[i - begin];
        else
            memcpy(out + begin, w.b.log_prob, size_t(end - begin) * 8);
    }
    return DONE;
}

template <class Kind>
Status log_joint(const Rows& rows, const View& view, const Mixture& m, int64_t start, int64_t stop, double* out) {
    Kind w(rows, view, m, stop - start, false);
    if (w.no_memory()) return NO_MEMORY;
    for (int64_t begin = start; begin < stop; begin += w.B) {
        const int64_t end = begin + w.B < stop ? begin + w.B : stop;
        w.joint(begin, end);
        for (int64_t k = 0; k < m.K; k++)
            for (int64_t i = begin; i < end; i++) out[w.row(i) * m.K + k] = w.b.joint_of(k)[i - begin];
    }
    return DONE;
}

struct Readers {
    decltype(Kernels::accumulate) accumulate;
    decltype(Kernels::log_prob) log_prob;
    decltype(Kernels::log_joint) log_joint;
};
template <class Kind>
constexpr Readers of_kind{accumulate<Kind>, log_prob<Kind>, log_joint<Kind>};

// Of lone rows as many at once as keep the units busy, and their matrices in the L1 cache.
const Readers& readers(const View& view, const Mixture& m) {
    if (!view.lone) return of_kind<Alike>;
    if (!view.lone->n_errors && !m.diagonal) return of_kind<Filled>;
    return m.D <= 4 ? of_kind<OwnErrors<4>> : m.D <= 24 ? of_kind<OwnErrors<2>> : of_kind<OwnErrors<1>>;
}

Status accumulate(const Rows& rows, const View& view, const Mixture& m, int64_t start, int64_t stop, bool moments,
                  const Statistics& s, Sums& sums) {
    return readers(view, m).accumulate(rows, view, m, start, stop, moments, s, sums);
}

Status log_prob(const Rows& rows, const View& view, const Mixture& m, int64_t start, int64_t stop, double* out) {
    return readers(view, m).log_prob(rows, view, m, start, stop, out);
}

Status log_joint(const Rows& rows, const View& view, const Mixture& m, int64_t start, int64_t stop, double* out) {
    return readers(view, m).log_joint(rows, view, m, start, stop, out);
}

Status ranges(const double* X, int64_t D, int64_t start, int64_t stop, double* low, double* high) {
    Array<double> wrong(D, 0.0);  // NaN once an entry of the column is not finite
    if (missing(wrong)) return NO_MEMORY;
    for (int64_t j = 0; j < D; j++) {
        low[j] = __builtin_inf();
        high[j] = -__builtin_inf();
    }
    for (int64_t i = start; i < stop; i++) {
        const double* x = X + i * D;
        for (int64_t j = 0; j < D; j++) {
            low[j] = x[j] < low[j] ? x[j] : low[j];
            high[j] = x[j] > high[j] ? x[j] : high[j];
            wrong[j] += 0.0 * x[j];
        }
    }
    for (int64_t j = 0; j < D; j++) {
        low[j] += wrong[j];
        high[j] += wrong[j];
    }
    return DONE;
}

// Rows under many draws: lanes are draws, eight of which meet a tile of rows at a time.
constexpr int EIGHT = 8;
constexpr int64_t TILE_ROWS = 16, TILE_WIDTH = TILE_ROWS * EIGHT + PAD;

// Entries of `Draws.values` for eight draws.
constexpr int64_t entries_of_draws(int64_t K, int64_t D) { return K * (1 + D + D * (D + 1) / 2) * EIGHT; }

// One tile in memory of its own: an entry of a line is 8 row + draw.
struct DrawsTile {
    Array<double> memory, d;
    double *x, *log_prob, *entropy, *joint;

    DrawsTile(int64_t K, int64_t D) : memory(D * TILE_ROWS + (2 + K) * TILE_WIDTH), d(D * EIGHT * WIDTH) {
        x = memory;  // (D, TILE_ROWS) minus the center
        log_prob = x + D * TILE_ROWS;
        entropy = log_prob + TILE_WIDTH;
        joint = entropy + TILE_WIDTH;
    }

    // Rows of X (n, D) from `begin` on, as many as there is room for; how many they are.
    int64_t load_rows(const double* X, int64_t begin, int64_t n, int64_t D, const double* center) const {
        const int64_t rows = n - begin < TILE_ROWS ? n - begin : TILE_ROWS;
        for (int64_t j = 0; j < D; j++)
            for (int64_t i = 0; i < rows; i++) x[j * TILE_ROWS + i] = X[(begin + i) * D + j] - center[j];
        return rows;
    }

    // A log joint density of component k, and in log_prob the largest so far.
    INLINE void put(int64_t k, int64_t to, lanes scale, lanes square) const {
        const lanes q = maximum(scale - 0.5 * square, splat(LOWEST));
        store(joint + k * TILE_WIDTH + to, q);
        store(log_prob + to, k ? maximum(load(log_prob + to), q) : q);
    }

    void write(int64_t K, int64_t rows, int64_t begin, int64_t g, const Memberships& out) const {
        for (int64_t i = 0; i < rows; i++)
            for (int64_t draw = 0; draw < EIGHT; draw += WIDTH) {
                const int64_t row = begin + i, from = i * EIGHT + draw, to = g * EIGHT + draw;
                store_anywhere(out.log_prob + row * out.width + to, load(log_prob + from));
                store_anywhere(out.entropy + row * out.width + to, load(entropy + from));
                for (int64_t k = 0; k < K; k++)
                    store_anywhere(out.responsibilities + (row * K + k) * out.width + to, load(joint + k * TILE_WIDTH + from));
            }
    }
};

// Log joint densities of R rows under WIDTH draws, and in log_prob the largest of them.
template <int R>
void joint_of_draws(const Draws& m, const double* at, int64_t row, int64_t draw, const DrawsTile& tile) {
    at += draw;
    for (int64_t k = 0; k < m.K; k++) {
        const lanes scale = load_anywhere(at);
        at += EIGHT;
        for (int64_t j = 0; j < m.D; j++, at += EIGHT) {
            const lanes mean = load_anywhere(at);
            UNROLL for (int r = 0; r < R; r++)
                store(tile.d + (j * R + r) * WIDTH, tile.x[j * TILE_ROWS + row + r] - mean);
        }
        lanes q[R];
        UNROLL for (int r = 0; r < R; r++) q[r] = lanes{};
        for (int64_t j = 0; j < m.D; j++) {
            lanes u[R];
            UNROLL for (int r = 0; r < R; r++) u[r] = lanes{};
            for (int64_t i = 0; i <= j; i++, at += EIGHT) {
                const lanes p = load_anywhere(at);
                UNROLL for (int r = 0; r < R; r++) u[r] += p * load(tile.d + (i * R + r) * WIDTH);
            }
            UNROLL for (int r = 0; r < R; r++) q[r] += u[r] * u[r];
        }
        UNROLL for (int r = 0; r < R; r++) {
            const int64_t to = (row + r) * EIGHT + draw;
            tile.put(k, to, scale, q[r]);
        }
    }
}

// Joint densities become responsibilities, their maximum the log-sum-exp.
void normalise_draws(int64_t K, int64_t n, const DrawsTile& tile) {
    constexpr int R = MANY_REGISTERS ? 4 : 2;
    for (int64_t at = 0; at < n; at += R * WIDTH) {  // beyond n there is room, and whatever is there
        lanes largest[R], total[R], entropy[R], log[R], r[R], t[R];
        EACH largest[i] = load(tile.log_prob + at + i * WIDTH);
        EACH total[i] = entropy[i] = lanes{};
        double* line = tile.joint + at;
        for (int64_t k = 0; k < K; k++, line += TILE_WIDTH) {
            EACH r[i] = t[i] = load(line + i * WIDTH) - largest[i];
            exp_bounded<R>(r);
            EACH store(line + i * WIDTH, r[i]);
            EACH total[i] += r[i];
            EACH entropy[i] -= r[i] * t[i];
        }
        log_above_one<R>(total, log);
        EACH total[i] = 1.0 / total[i];
        EACH store(tile.log_prob + at + i * WIDTH, largest[i] + log[i]);
        EACH store(tile.entropy + at + i * WIDTH, entropy[i] * total[i] + log[i]);
        line = tile.joint + at;
        for (int64_t k = 0; k < K; k++, line += TILE_WIDTH)
            EACH store(line + i * WIDTH, load(line + i * WIDTH) * total[i]);
    }
}

Status memberships(const double* X, int64_t n, const Draws& m, const Memberships& out) {
    constexpr int R = MANY_REGISTERS ? 8 : 4;
    const int64_t size = entries_of_draws(m.K, m.D);
    const DrawsTile tile(m.K, m.D);
    if (missing(tile.memory, tile.d)) return NO_MEMORY;
    for (int64_t begin = 0; begin < n; begin += TILE_ROWS) {
        const int64_t rows = tile.load_rows(X, begin, n, m.D, m.center);
        for (int64_t g = 0; g < m.groups; g++) {
            for (int64_t draw = 0; draw < EIGHT; draw += WIDTH) {
                int64_t row = 0;
                for (; row + R <= rows; row += R) joint_of_draws<R>(m, m.values + g * size, row, draw, tile);
                for (; row < rows; row++) joint_of_draws<1>(m, m.values + g * size, row, draw, tile);
            }
            normalise_draws(m.K, rows * EIGHT, tile);
            tile.write(m.K, rows, begin, g, out);
        }
    }
    return DONE;
}

// A component under eight draws, and a row, as the columns that are seen have them: what `Small` factors.
struct SeenRow {
    static constexpr int R = EIGHT / WIDTH;
    const double *mean, *S;  // of the component
    const Seen& seen;
    int64_t width;    // the draws' features
    const double* x;  // the row minus the center, TILE_ROWS entries apart

    template <int D, bool PLAIN>
    INLINE void promise() {}
    INLINE void T(int64_t row, int64_t j, lanes (&t)[R]) const {
        const int64_t ci = seen.columns[row], cj = seen.columns[j];
        const double error = seen.errors ? seen.errors[ci * width + cj] : 0.0;
        EACH t[i] = load_anywhere(S + (ci * (ci + 1) / 2 + cj) * EIGHT + i * WIDTH) + error;
    }
    INLINE void d(int64_t j, lanes (&d)[R]) const {
        EACH d[i] = x[j * TILE_ROWS] - load_anywhere(mean + seen.columns[j] * EIGHT + i * WIDTH);
    }

    using Factor = void (*)(SeenRow, double*, lanes (&)[R]);
    template <int D>
    static Factor factor(int64_t d) {  // null where there are more columns than straight-line code is for
        if constexpr (D > 10)
            return nullptr;
        else
            return d == D ? Small<D, R>::template factor_of<true, SeenRow> : factor<D + 1>(d);
    }
};

// Components under eight draws as the columns that are seen have them, errors included: factors of their covariances.
struct SeenDraws {
    static constexpr int R = EIGHT / WIDTH;  // vectors that eight draws are
    using Steps = General<R>;
    const Draws& m;
    const Seen& seen;
    const int64_t d, size;
    Array<double> L, room, y, v, scale;  // of each component L, its pivots, log joint density at the mean; of a tile y

    SeenDraws(const Draws& m, const Seen& seen)
        : m(m), seen(seen), d(seen.n), size(d * EIGHT), L((m.K * d + 1) * size), room(m.K * size + size), y(TILE_ROWS * size),
          v(size), scale(m.K * EIGHT) {}
    bool no_memory() const { return missing(L, room, y, v, scale); }

    const double* values(int64_t g, int64_t k) const { return m.values + (g * m.K + k) * entries_of_draws(1, m.D); }

    void factor(int64_t g) {
        for (int64_t k = 0; k < m.K; k++) {  // room for more than the pivots is where those of the next one come
            const double *from = values(g, k), *S = from + (1 + m.D) * EIGHT;
            double* T = L + k * d * size;
            for (int64_t i = 0; i < d; i++)
                for (int64_t j = 0; j <= i; j++) {
                    const int64_t ci = seen.columns[i], cj = seen.columns[j];
                    const double error = seen.errors ? seen.errors[ci * m.D + cj] : 0.0;
                    for (int64_t w = 0; w < EIGHT; w += WIDTH)
                        store(T + i * size + j * EIGHT + w, load_anywhere(S + (ci * (ci + 1) / 2 + cj) * EIGHT + w) + error);
                }
            lanes q[R];
            EACH q[i] = splat(double(d) * LOG_2PI);
            Steps::eliminate(d, 0, T, room + k * size, q);
            EACH store(scale + k * EIGHT + i * WIDTH, load_anywhere(from + i * WIDTH) - 0.5 * q[i]);
        }
    }

    // Log joint densities of a tile of rows, and in log_prob the largest of them.
    void joint(int64_t g, int64_t rows, const DrawsTile& tile) {
        for (int64_t k = 0; k < m.K; k++) {
            const double* mean = values(g, k) + EIGHT;
            for (int64_t row = 0; row < rows; row++)
                for (int64_t j = 0; j < d; j++)
                    for (int64_t w = 0; w < EIGHT; w += WIDTH)
                        store(y + row * size + j * EIGHT + w,
                              tile.x[j * TILE_ROWS + row] - load_anywhere(mean + seen.columns[j] * EIGHT + w));
            Steps::solve(d, rows, L + k * d * size, room + k * size, y, v);
            for (int64_t row = 0; row < rows; row++) {
                lanes q[R];
                EACH q[i] = lanes{};
                Steps::add_square(d, y + row * size, room + k * size, q);
                EACH tile.put(k, row * EIGHT + i * WIDTH, load(scale + k * EIGHT + i * WIDTH), q[i]);
            }
        }
    }

    // The same of one row, of which no factors are kept.
    void joint_of_one(int64_t g, SeenRow::Factor factor, const DrawsTile& tile) {
        for (int64_t k = 0; k < m.K; k++) {
            const double* from = values(g, k);
            lanes q[R];
            EACH q[i] = splat(double(d) * LOG_2PI);
            factor({from + EIGHT, from + (1 + m.D) * EIGHT, seen, m.D, tile.x}, L, q);
            EACH tile.put(k, i * WIDTH, load_anywhere(from + i * WIDTH), q[i]);
        }
    }
};

Status memberships_seen(const double* X, int64_t n, const Draws& m, const Seen& seen, const Memberships& out) {
    const DrawsTile tile(m.K, seen.n);
    SeenDraws draws(m, seen);
    const Array<double> center(seen.n);
    if (missing(tile.memory, tile.d, center) || draws.no_memory()) return NO_MEMORY;
    for (int64_t j = 0; j < seen.n; j++) center[j] = m.center[seen.columns[j]];
    const SeenRow::Factor of_one = n == 1 ? SeenRow::factor<1>(seen.n) : nullptr;
    for (int64_t g = 0; g < m.groups; g++) {
        if (!of_one) draws.factor(g);
        for (int64_t begin = 0; begin < n; begin += TILE_ROWS) {
            const int64_t rows = tile.load_rows(X, begin, n, seen.n, center);
            of_one ? draws.joint_of_one(g, of_one, tile) : draws.joint(g, rows, tile);
            normalise_draws(m.K, rows * EIGHT, tile);
            tile.write(m.K, rows, begin, g, out);
        }
    }
    return DONE;
}

double sum_exp(double* x, int64_t n) {
    constexpr int R = 4;
    const int64_t all = (n + R * WIDTH - 1) / (R * WIDTH) * (R * WIDTH);
    for (int64_t i = n; i < all; i++) x[i] = LOWEST;
    lanes total[R];
    EACH total[i] = lanes{};
    for (int64_t at = 0; at < all; at += R * WIDTH) {
        lanes y[R];
        EACH y[i] = load(x + at + i * WIDTH);
        exp_bounded<R>(y);
        EACH total[i] += y[i];
    }
    return sum((total[0] + total[1]) + (total[2] + total[3]));
}

constexpr int AT_ONCE = 4;  // rows of a triangular matrix, with zeros above its diagonal

void lower_times(const float* L, int64_t n, const double* x, double* out) {
    for (int64_t i = 0; i < n; i += AT_ONCE, L += AT_ONCE * n) {
        lanes s[AT_ONCE] = {};
        for (int64_t j = 0; j < i + AT_ONCE; j += WIDTH)
            UNROLL for (int r = 0; r < AT_ONCE; r++) s[r] += widened(L + r * n + j) * load(x + j);
        UNROLL for (int r = 0; r < AT_ONCE; r++) out[i + r] = sum(s[r]);
    }
}

void lower_transposed_times(const float* L, int64_t n, const double* x, double* out) {
    memset(out, 0, size_t(n) * sizeof(double));
    for (int64_t i = 0; i < n; i += AT_ONCE, L += AT_ONCE * n)
        for (int64_t j = 0; j < i + AT_ONCE; j += WIDTH) {
            lanes s = load(out + j);
            UNROLL for (int r = 0; r < AT_ONCE; r++) s += widened(L + r * n + j) * x[i + r];
            store(out + j, s);
        }
}

int64_t multiply_adds(int64_t times) {
    constexpr int R = 12;  // chains, more than are ever under way
    lanes x[R], factor = splat(0.999), term = splat(1e-4);
    EACH x[i] = splat(double(i));
    for (int64_t t = 0; t < times; t++) EACH x[i] = x[i] * factor + term;
    double total = 0.0;
    EACH total += sum(x[i]);
    return total < 1e300 ? times * R * WIDTH : 0;  // to compute what is not used would be skipped
}

}  // namespace

extern const Kernels table;
const Kernels table = {STRING(LEVEL), accumulate,  log_prob,         log_joint, products,    ranges,
                       memberships,   memberships_seen, sum_exp,  lower_times, lower_transposed_times,
                       multiply_adds};
}  // namespace LEVEL
