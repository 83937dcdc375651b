// Rows that are read alone because they have errors of their own. Included by each level's kernel, inside that level's
// namespace. Rows of diagonal models that are read alone because of what they miss are read here too.
//
// With M = diag(1 where the row has a value, else 0), d = M (x - mean) and T = M (covariance + errors) M + I - M, the row's
// values have the density that d has under T, to which missing ones add nothing but a constant. What the row says of the
// component is in u = T^-1 d and A = M T^-1 M: its true values are expected at mean + covariance u, and what is not known
// of them has the covariance  covariance - covariance A covariance. So the sums of r, r u and H = r (u u' - A) over rows
// with responsibilities r are all that is needed, and the component's covariance is multiplied in once, at the end.
//
// All of it comes from the bordered matrix [T d; d' 0] = L diag(p) L', L with a unit diagonal: the pivots p_j, j < D, are
// those of T, the last one is -d' T^-1 d, and the last row of L leads to u by the steps that lead from L to T^-1.
//
// Three structs know two steps each, for R vectors of rows: `factor` fills L, with 1 / p on its diagonal, and adds
// log|T| + d'T^-1 d to q, or more than any density survives where T is not positive definite; `sums` adds r, r u and the
// lower triangle of H, or its diagonal, to lanes of sums.

constexpr int64_t KEPT = 2 << 20;  // bytes of factors that wait for the responsibilities, half of them used: in the L2 cache

// What is stored is to be loaded again where it is needed, not kept on the stack as well.
#define FORGET __asm__ volatile("" : : : "memory")

// What T and d of R vectors of rows are made of.
template <int R>
struct Source {
    const double *covariance, *mean;   // (D, D), (D,) of the component
    const double *x, *known, *errors;  // lines, from the first of the rows on: x minus the center; 1 or 0; S + I - M
    int64_t D, x_line, line;           // features, and how far lines are apart
    bool holes, correlated;            // whether any value is missing; whether there are errors off the diagonal
    bool diagonal;                     // whether of H the diagonal is enough

    // What the compiler is to know of it.
    template <int D_, bool PLAIN>
    INLINE void promise() {
        D = D_;
        holes &= !PLAIN;
        correlated &= !PLAIN;
    }

    // Entries (row, j <= row) of T, and j of d.
    INLINE void T(int64_t row, int64_t j, lanes (&t)[R]) const {
        EACH t[i] = splat(covariance[row * D + j]);
        if (holes) EACH t[i] *= load(known + row * line + i * WIDTH) * load(known + j * line + i * WIDTH);
        const double* e = errors + (correlated ? row * (row + 1) / 2 + j : j) * line;
        if (row == j || correlated) EACH t[i] += load(e + i * WIDTH);
    }
    INLINE void d(int64_t j, lanes (&d)[R]) const {
        EACH d[i] = load(x + j * x_line + i * WIDTH) - mean[j];
        if (holes) EACH d[i] *= load(known + j * line + i * WIDTH);
    }
};

// The next pivot: q takes notice of one that is not positive, which is replaced.
template <int R>
INLINE void take_pivot(lanes (&p)[R], lanes (&q)[R], LogProduct<R>& determinant) {
    EACH q[i] = p[i] > 0.0 ? q[i] : splat(-4.0 * LOWEST);
    EACH p[i] = p[i] > 0.0 ? p[i] : splat(1.0);
    EACH determinant.multiply(i, p[i]);
}

// Matrices that are diagonal need no L.
template <int R>
struct Diagonal {
    static void factor(const Source<R>& source, double*, double*, lanes (&q)[R]) {
        LogProduct<R> determinant;
        for (int64_t j = 0; j < source.D; j++) {
            lanes t[R], d[R];
            source.T(j, j, t);
            source.d(j, d);
            take_pivot<R>(t, q, determinant);
            EACH q[i] += d[i] * d[i] / t[i];
        }
        determinant.add_to(q);
    }

    static void sums(const Source<R>& source, const double*, const double* weight, double*, double* packed) {
        lanes r[R], n = load(packed);
        EACH n += r[i] = load(weight + i * WIDTH);
        store(packed, n);
        for (int64_t j = 0; j < source.D; j++) {
            double *first = packed + (1 + j) * WIDTH, *H = first + source.D * WIDTH;
            lanes t[R], d[R], g = load(first), h = load(H);
            source.T(j, j, t);
            source.d(j, d);
            EACH {
                const lanes inverse = 1.0 / t[i], u = inverse * d[i];
                g += r[i] * u;
                h += r[i] * (u * u - inverse * load(source.known + j * source.line + i * WIDTH));
            }
            store(first, g);
            store(H, h);
        }
    }
};

// Few features: straight-line code. H comes from X = L^-1 of T's own part, whose strictly lower part is computed.
template <int D, int R>
struct Small {
    static constexpr int V = R * WIDTH;
    static constexpr int at(int row, int j) { return (row * D + j) * V; }

    static void factor(const Source<R>& source, double* L, double*, lanes (&q)[R]) {
        source.holes || source.correlated ? factor_of<false>(source, L, q) : factor_of<true>(source, L, q);
    }

    // The source is a `Source`, or anything that has T and d.
    template <bool PLAIN, class Any>
    static NOINLINE void factor_of(Any source, double* L, lanes (&q)[R]) {
        source.template promise<D, PLAIN>();
        LogProduct<R> determinant;
        lanes pivots[D][R];
        UNROLL for (int j = 0; j < D; j++) {
            lanes v[D][R], inverse[R];
            UNROLL for (int c = 0; c < j; c++) EACH v[c][i] = load(L + at(j, c) + i * WIDTH) * pivots[c][i];
            source.T(j, j, pivots[j]);
            UNROLL for (int c = 0; c < j; c++) EACH pivots[j][i] -= load(L + at(j, c) + i * WIDTH) * v[c][i];
            take_pivot<R>(pivots[j], q, determinant);
            EACH inverse[i] = 1.0 / pivots[j][i];
            EACH store(L + at(j, j) + i * WIDTH, inverse[i]);
            UNROLL for (int row = j + 1; row <= D; row++) {
                lanes s[R];
                if (row < D)
                    source.T(row, j, s);
                else
                    source.d(j, s);
                UNROLL for (int c = 0; c < j; c++) EACH s[i] -= load(L + at(row, c) + i * WIDTH) * v[c][i];
                EACH store(L + at(row, j) + i * WIDTH, s[i] * inverse[i]);
                if (row == D) EACH q[i] += s[i] * s[i] * inverse[i];
            }
            FORGET;
        }
        determinant.add_to(q);
    }

    static NOINLINE void sums(const Source<R>& source, const double* L, const double* weight, double* X, double* packed) {
        lanes r[R], u[D][R], n = load(packed);
        EACH n += r[i] = load(weight + i * WIDTH);
        store(packed, n);
        invert(L, X);
        FORGET;
        double *first = packed + WIDTH, *H = first + D * WIDTH;
        UNROLL for (int j = 0; j < D; j++) {
            lanes g = load(first + j * WIDTH);
            EACH u[j][i] = load(L + at(D, j) + i * WIDTH);
            UNROLL for (int c = j + 1; c < D; c++)
                EACH u[j][i] += load(X + at(c, j) + i * WIDTH) * load(L + at(D, c) + i * WIDTH);
            EACH g += r[i] * u[j][i];
            store(first + j * WIDTH, g);
        }
        UNROLL for (int j = 0; j < D; j++) {
            lanes z[D][R];  // r / p times column j of X
            UNROLL for (int c = j; c < D; c++)
                EACH z[c][i] = r[i] * load(L + at(c, c) + i * WIDTH) * (c > j ? load(X + at(c, j) + i * WIDTH) : splat(1.0));
            UNROLL for (int row = j; row < D; row++) {
                if (source.diagonal && row > j) continue;
                double* to = H + (source.diagonal ? j : row * (row + 1) / 2 + j) * WIDTH;
                lanes h = load(to), a[R];
                EACH a[i] = z[row][i];
                UNROLL for (int c = row + 1; c < D; c++) EACH a[i] += load(X + at(c, row) + i * WIDTH) * z[c][i];
                if (row == j) EACH a[i] *= load(source.known + j * source.line + i * WIDTH);
                EACH h += r[i] * u[j][i] * u[row][i] - a[i];
                store(to, h);
            }
            FORGET;
        }
    }

    static INLINE void invert(const double* L, double* X) {
        UNROLL for (int row = 1; row < D; row++)
            UNROLL for (int j = 0; j < row; j++) {
                lanes x[R];
                EACH x[i] = load(L + at(row, j) + i * WIDTH);
                UNROLL for (int c = j + 1; c < row; c++)
                    EACH x[i] += load(L + at(row, c) + i * WIDTH) * load(X + at(c, j) + i * WIDTH);
                EACH store(X + at(row, j) + i * WIDTH, -x[i]);
            }
    }
};

// target[i] = (target[i] - sum_p rows[i][p] v[p]) scale for I rows of a matrix, `stride` entries apart, an entry being R
// vectors. All sums stay in registers.
template <int I, int R>
NOINLINE void reduce_tile(double* target, const double* rows, int64_t stride, const double* v, int64_t n,
                          const lanes* scale) {
    constexpr int V = R * WIDTH;
    lanes s[I][R];
    UNROLL for (int i = 0; i < I; i++)
        UNROLL for (int r = 0; r < R; r++) s[i][r] = load(target + i * stride * V + r * WIDTH);
    for (int64_t p = 0; p < n; p++) {
        lanes x[R];
        UNROLL for (int r = 0; r < R; r++) x[r] = load(v + p * V + r * WIDTH);
        UNROLL for (int i = 0; i < I; i++)
            UNROLL for (int r = 0; r < R; r++) s[i][r] -= load(rows + (i * stride + p) * V + r * WIDTH) * x[r];
    }
    UNROLL for (int i = 0; i < I; i++)
        UNROLL for (int r = 0; r < R; r++) store(target + i * stride * V + r * WIDTH, s[i][r] * scale[r]);
}

// The same for `count` rows, in tiles of I, I/2, ..., 1.
template <int I, int R>
void reduce(double* target, const double* rows, int64_t stride, const double* v, int64_t n, const lanes* scale,
            int64_t count) {
    for (; count >= I; count -= I, target += I * stride * R * WIDTH, rows += I * stride * R * WIDTH)
        reduce_tile<I, R>(target, rows, stride, v, n, scale);
    if constexpr (I > 1) reduce<I / 2, R>(target, rows, stride, v, n, scale, count);
}

// Any number of features. H comes from the inverse of T, by Takahashi's recursion from the last column on, to which u is
// the last row.
template <int R>
struct General {
    static constexpr int V = R * WIDTH, I = (MANY_REGISTERS ? 16 : 8) / R;

    static void factor(const Source<R>& source, double* L, double* room, lanes (&q)[R]) {
        const int64_t D = source.D;
        form(source, L);
        eliminate(D, 1, L, room, q);
        add_square(D, L + D * D * V, room, q);
    }

    // The lower triangle of T in L becomes its factor, whose inverse multiplies the rows y below, `more` in number; q gains
    // log|T|. `room` has the pivots first.
    static void eliminate(int64_t D, int64_t more, double* L, double* room, lanes (&q)[R]) {
        double *pivots = room, *v = room + D * V;
        lanes one[R];
        EACH one[i] = splat(1.0);
        LogProduct<R> determinant;
        for (int64_t j = 0; j < D; j++) {
            double *row = L + j * D * V, *pivot = row + j * V;
            for (int64_t at = 0; at < j * V; at += WIDTH) store(v + at, load(row + at) * load(pivots + at));
            reduce_tile<1, R>(pivot, row, D, v, j, one);
            lanes p[R], inverse[R];
            EACH p[i] = load(pivot + i * WIDTH);
            take_pivot<R>(p, q, determinant);
            EACH inverse[i] = 1.0 / p[i];
            EACH store(pivots + j * V + i * WIDTH, p[i]);
            EACH store(pivot + i * WIDTH, inverse[i]);
            reduce<I, R>(pivot + D * V, row + D * V, D, v, j, inverse, D - 1 - j + more);
        }
        determinant.add_to(q);
    }

    // q gains the square of a row y below the factor, d'T^-1 d of the d that it was.
    static void add_square(int64_t D, const double* y, const double* pivots, lanes (&q)[R]) {
        for (int64_t at = 0; at < D * V; at += V)
            EACH {
                const lanes t = load(y + at + i * WIDTH);
                q[i] += t * t * load(pivots + at + i * WIDTH);
            }
    }

    // Rows y below a factor that is there already.
    static void solve(int64_t D, int64_t rows, const double* L, const double* pivots, double* y, double* v) {
        for (int64_t j = 0; j < D; j++, L += D * V) {
            lanes inverse[R];
            EACH inverse[i] = load(L + j * V + i * WIDTH);
            for (int64_t at = 0; at < j * V; at += WIDTH) store(v + at, load(L + at) * load(pivots + at));
            reduce<I, R>(y + j * V, y, D, v, j, inverse, rows);
        }
    }

    // The lower triangle of the bordered matrix.
    static void form(const Source<R>& source, double* L) {
        const int64_t D = source.D;
        lanes t[R];
        for (int64_t row = 0; row <= D; row++, L += D * V)
            for (int64_t j = 0; j <= row && j < D; j++) {
                if (row < D)
                    source.T(row, j, t);
                else
                    source.d(j, t);
                EACH store(L + j * V + i * WIDTH, t[i]);
            }
    }

    static void sums(const Source<R>& source, const double* L, const double* weight, double* room, double* packed) {
        const int64_t D = source.D;
        double* inverse = room + D * V;
        invert(D, L, inverse, room);
        lanes r[R], n = load(packed);
        EACH n += r[i] = load(weight + i * WIDTH);
        store(packed, n);
        double *first = packed + WIDTH, *H = first + D * WIDTH;
        const double* u = inverse + D * D * V;
        for (int64_t j = 0; j < D; j++, first += WIDTH) {
            lanes ru[R], g = load(first);
            EACH g += ru[i] = r[i] * load(u + j * V + i * WIDTH);
            store(first, g);
            const double* A = inverse + j * D * V;
            for (int64_t c = source.diagonal ? j : 0; c <= j; c++, H += WIDTH) {
                lanes h = load(H), a[R];
                EACH a[i] = r[i] * load(A + c * V + i * WIDTH);
                if (c == j) EACH a[i] *= load(source.known + j * source.line + i * WIDTH);
                EACH h += ru[i] * load(u + c * V + i * WIDTH) - a[i];
                store(H, h);
            }
        }
    }

    static void invert(int64_t D, const double* L, double* inverse, double* v) {
        lanes one[R];
        EACH one[i] = splat(1.0);
        for (int64_t j = D - 1; j >= 0; j--) {
            const int64_t n = D - 1 - j, diagonal = j * (D + 1) * V;
            double* below = inverse + diagonal + D * V;
            for (int64_t c = 0; c < n; c++)
                EACH {
                    store(v + c * V + i * WIDTH, load(L + diagonal + (c + 1) * D * V + i * WIDTH));
                    store(below + c * D * V + i * WIDTH, lanes{});
                }
            EACH store(below + n * D * V + i * WIDTH, load(L + diagonal + (n + 1) * D * V + i * WIDTH));
            EACH store(inverse + diagonal + i * WIDTH, load(L + diagonal + i * WIDTH));
            reduce<I, R>(below, below + V, D, v, n, one, n + 1);
            for (int64_t c = 0; c < n; c++)
                EACH store(inverse + diagonal + (c + 1) * V + i * WIDTH, load(below + c * D * V + i * WIDTH));
            reduce_tile<1, R>(inverse + diagonal, inverse + diagonal + V, D, v, n, one);
        }
    }
};

// A block of such rows, R vectors of them at once.
template <int R>
struct OwnErrors : Work {
    static constexpr int64_t LINE = GROUP + PAD, V = R * WIDTH;
    const Lone& lone;
    const int64_t D;
    const bool independent;  // whether every T is diagonal
    const int64_t size;      // entries of L
    const bool keep;         // every component's L until the sums are taken; else they are computed again
    const int64_t n_sums;    // of a component
    bool holes = false;      // whether the block has any
    decltype(&General<R>::factor) factor = General<R>::factor;
    decltype(&General<R>::sums) sums = General<R>::sums;
    Array<double> lines, factors, room, log_weight;
    double *constant, *known, *errors;  // log 2 pi for each value; (D) lines of 1 where there is one, else 0; S + I - M

    OwnErrors(const Rows& rows, const View& view, const Mixture& m, int64_t, bool moments)
        : Work(rows, view, m, GROUP), lone(*view.lone), D(m.D), independent(m.diagonal && !lone.correlated),
          size(independent ? 0 : (D + 1) * D), keep(moments && m.K * size * GROUP * 8 <= KEPT),
          n_sums(1 + D + (m.diagonal ? D : D * (D + 1) / 2)),
          lines((1 + D + (lone.correlated ? D * (D + 1) / 2 : D)) * LINE), factors((keep ? m.K : 1) * size * GROUP),
          room((size + 2 * D) * V), log_weight(m.K), constant(lines), known(lines + LINE), errors(lines + (1 + D) * LINE) {
        if (independent)
            pick<Diagonal<R>>();
        else
            pick_small<R == 4 ? 1 : 5, R == 4 ? 4 : R == 2 ? 10 : 0>();
        for (int64_t k = 0; k < m.K && !log_weight.missing(); k++) {
            log_weight[k] = m.log_scale[k] + 0.5 * double(D) * LOG_2PI;
            for (int64_t j = 0; j < D; j++) log_weight[k] -= log(m.P[(k * D + j) * D + j]);
        }
    }

    template <class Steps>
    void pick() {
        factor = Steps::factor;
        sums = Steps::sums;
    }
    template <int LEAST_D, int MOST_D>
    void pick_small() {
        if constexpr (LEAST_D <= MOST_D) {
            if (D == LEAST_D) pick<Small<LEAST_D, R>>();
            pick_small<LEAST_D + 1, MOST_D>();
        }
    }

    bool no_memory() const { return missing(memory, lines, factors, room, log_weight); }
    int64_t n_packed() const { return m.K * n_sums * WIDTH; }
    double* known_of(int64_t j) const { return known + j * LINE; }
    double* errors_of(int64_t i, int64_t j) const { return errors + (lone.correlated ? i * (i + 1) / 2 + j : i) * LINE; }
    double* factors_of(int64_t k, int64_t part) const { return factors + size * ((keep ? k : 0) * GROUP + part); }
    Source<R> source(int64_t k, int64_t part) const {
        return {lone.covariances + k * D * D, m.offsets + k * D, b.x + part, known + part, errors + part, D, b.width, LINE,
                holes, bool(lone.correlated), bool(m.diagonal)};
    }

    void load_rows(int64_t begin, int64_t end) {
        holes = end - begin < GROUP;
        for (int64_t i = 0; i < GROUP; i++) {
            const int64_t row = begin + i < end ? view.order[begin + i] : -1;
            int64_t n_known = 0;
            for (int64_t j = 0; j < D; j++) {
                const double x = row < 0 ? __builtin_nan("") : rows.X[row * D + j];
                const bool there = x == x;
                b.x_of(j)[i] = there ? x - rows.center[j] : 0.0;
                known_of(j)[i] = there;
                n_known += there;
            }
            constant[i] = double(n_known) * LOG_2PI;
            holes |= n_known < D;
            load_errors(row, i);
        }
    }

    void load_errors(int64_t row, int64_t i) {
        const int64_t stride = lone.correlated ? D : 0, n = lone.correlated ? D * D : D;
        const double* S = lone.n_errors && row >= 0 ? lone.errors + (lone.n_errors > 1 ? row * n : 0) : nullptr;
        for (int64_t j = 0; j < D; j++)
            for (int64_t c = lone.correlated ? 0 : j; c <= j; c++) {
                const bool there = known_of(j)[i] != 0.0 && known_of(c)[i] != 0.0;
                errors_of(j, c)[i] = there ? (S ? S[j * stride + c] : 0.0) : c == j;
            }
    }

    void joint(int64_t begin, int64_t end) {
        load_rows(begin, end);
        for (int64_t k = 0; k < m.K; k++)
            for (int64_t part = 0; part < GROUP; part += V) {
                lanes q[R];
                EACH q[i] = load(constant + part + i * WIDTH);
                factor(source(k, part), factors_of(k, part), room, q);
                EACH put_joint(b, b.joint_of(k), k, part + i * WIDTH, q[i], log_weight[k]);
            }
        if (rows.noise) add_noise(begin, end - begin);
    }

    void moments(double* packed) {
        for (int64_t k = 0; k < m.K; k++, packed += n_sums * WIDTH)
            for (int64_t part = 0; part < GROUP; part += V) {
                lanes q[R] = {};
                if (!keep) factor(source(k, part), factors_of(k, part), room, q);
                sums(source(k, part), factors_of(k, part), b.joint_of(k) + part, room, packed);
            }
    }

    // first = covariance (sum of r u), scatter = n covariance + covariance H covariance.
    Status unpack(const double* packed, const Statistics& s) const {
        Array<double> H(D * D), product(D * D);
        if (missing(H, product)) return NO_MEMORY;
        for (int64_t k = 0; k < m.K; k++) {
            const double* covariance = lone.covariances + k * D * D;
            double *to_first = s.first + k * D, *to = s.scatter + k * D * D;
            const double n = s.counts[k] = next(packed);
            memset(H, 0, size_t(D * D) * 8);
            for (int64_t j = 0; j < D; j++) {
                const double g = next(packed);
                for (int64_t i = 0; i < D; i++) to_first[i] += covariance[i * D + j] * g;
            }
            for (int64_t i = 0; i < D; i++)
                for (int64_t j = m.diagonal ? i : 0; j <= i; j++) H[i * D + j] = H[j * D + i] = next(packed);
            multiply(covariance, H, product);
            multiply(product, covariance, to);
            for (int64_t i = 0; i < D * D; i++) to[i] += n * covariance[i];
        }
        return DONE;
    }

    static double next(const double*& packed) {
        packed += WIDTH;
        return sum(load(packed - WIDTH));
    }

    void multiply(const double* left, const double* right, double* product) const {
        memset(product, 0, size_t(D * D) * 8);
        for (int64_t i = 0; i < D; i++)
            for (int64_t m = 0; m < D; m++)
                for (int64_t j = 0; j < D; j++) product[i * D + j] += left[i * D + m] * right[m * D + j];
    }
};
