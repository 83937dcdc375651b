// Rows that are read alone because few others miss the same values. Included by each level's kernel, inside that level's
// namespace.
//
// Each component fills in the values that a row misses, with their expectation given the others; then the rows are
// complete and are read like others. With P P' the precision and d the row minus the mean, the filled-in values minimise
// |P'd|^2, a problem of least squares in which the missing values' rows of P are the columns: modified Gram-Schmidt makes
// them orthonormal, P_m' = Q R, which keeps the digits that P_m P_m', their precision, would lose beside a thin component.
// The density is that of the filled row over that of the filled-in values, and (R'R)^-1, their covariance, is added to
// the scatter.

// R vectors of D entries each, side by side: sum_j a_j b_j, and a -= s b.
template <int R>
INLINE void dots(const double* a, const double* b, int64_t D, lanes (&s)[R]) {
    EACH s[i] = lanes{};
    for (int64_t j = 0; j < D * R * WIDTH; j += R * WIDTH)
        EACH s[i] += load(a + j + i * WIDTH) * load(b + j + i * WIDTH);
}
template <int R>
INLINE void subtract(double* a, const double* b, int64_t D, const lanes (&s)[R]) {
    for (int64_t j = 0; j < D * R * WIDTH; j += R * WIDTH)
        EACH store(a + j + i * WIDTH, load(a + j + i * WIDTH) - s[i] * load(b + j + i * WIDTH));
}

struct Filled : Alike {
    static constexpr int R = MANY_REGISTERS ? 4 : 2, V = R * WIDTH;
    static constexpr int64_t ROWS = 128;  // of a block
    const int64_t D, size;                // features; entries that a row's x and R may have
    int64_t most = 0;                     // missing values of a row of the block
    Array<double> known, solutions, room, zeros, extra;  // (D, B) 1 or 0; (K, size, B); (D + 2, D, V); (D,); (K, D, D)
    Array<int64_t> missing, n_missing;            // (B, D) the columns that each row misses; (B,)

    Filled(const Rows& rows, const View& view, const Mixture& m, int64_t n, bool moments)
        : Alike(rows, view, m, n < ROWS ? n : ROWS, moments), D(m.D), size(D + D * (D + 1) / 2), known(D * B),
          solutions(m.K * size * B), room((D + 2) * D * V), zeros(D, 0.0), extra(m.K * D * D, 0.0), missing(D * B), n_missing(B) {}

    bool no_memory() const { return LEVEL::missing(memory, known, solutions, room, zeros, extra, missing, n_missing); }

    void load_rows(int64_t begin, int64_t end) {
        most = 0;
        for (int64_t i = 0; i < B; i++) {
            n_missing[i] = 0;
            for (int64_t j = 0; j < D; j++) {
                const double x = begin + i < end ? rows.X[view.order[begin + i] * D + j] : rows.center[j];
                const bool there = x == x;
                b.x_of(j)[i] = there ? x - rows.center[j] : 0.0;
                known[j * B + i] = there;
                if (!there) missing[i * D + n_missing[i]++] = j;
            }
            most = n_missing[i] > most ? n_missing[i] : most;
        }
    }

    void joint(int64_t begin, int64_t end) {
        load_rows(begin, end);
        for (int64_t k = 0; k < m.K; k++)
            for (int64_t at = 0; at < B; at += V) fill(k, at);
        if (rows.noise) add_noise(begin, end - begin);
    }

    // x_a of a row under component k, and R_ab for a <= b, 1 / R_aa on the diagonal: lines of the block.
    double* x_of(int64_t k, int64_t a) const { return solutions + (k * size + a) * B; }
    double* R_of(int64_t k, int64_t a, int64_t b) const { return solutions + (k * size + D + b * (b + 1) / 2 + a) * B; }

    // Rows [at, at + V) under component k: their densities, and x = -R^-1 Q'z, z = P'd, which adds to the means.
    void fill(int64_t k, int64_t at) const {
        double *z = room, *Q = z + D * V;
        whiten(k, at, z);
        LogProduct<R> determinant;
        for (int64_t a = 0; a < most; a++) {
            double* v = Q + a * D * V;
            take_rows(k, at, a, v);
            lanes s[R], inverse[R];
            for (int64_t c = 0; c < a; c++) {
                dots<R>(Q + c * D * V, v, D, s);
                subtract<R>(v, Q + c * D * V, D, s);
                EACH store(R_of(k, c, a) + at + i * WIDTH, s[i]);
            }
            dots<R>(v, v, D, s);
            for (int i = 0; i < R; i++) {
                s[i] = s[i] > 0.0 ? s[i] : splat(1.0);  // of rows that miss fewer
                determinant.multiply(i, s[i]);
                for (int l = 0; l < WIDTH; l++) s[i][l] = sqrt(s[i][l]);
                inverse[i] = 1.0 / s[i];
                store(R_of(k, a, a) + at + i * WIDTH, inverse[i]);
            }
            for (int64_t j = 0; j < D * V; j += V)
                EACH store(v + j + i * WIDTH, load(v + j + i * WIDTH) * inverse[i]);
            dots<R>(v, z, D, s);
            subtract<R>(z, v, D, s);
            EACH store(x_of(k, a) + at + i * WIDTH, -s[i]);
        }
        lanes q[R];
        dots<R>(z, z, D, q);
        determinant.add_to(q);
        for (int i = 0; i < R; i++) {
            for (int l = 0; l < WIDTH; l++) q[i][l] -= double(n_missing[at + i * WIDTH + l]) * LOG_2PI;
            put_joint(b, b.joint_of(k), k, at + i * WIDTH, q[i], m.log_scale[k]);
        }
        for (int64_t a = most - 1; a >= 0; a--)
            EACH {
                const int64_t to = at + i * WIDTH;
                lanes t = load(x_of(k, a) + to);
                for (int64_t c = a + 1; c < most; c++) t -= load(R_of(k, a, c) + to) * load(x_of(k, c) + to);
                store(x_of(k, a) + to, t * load(R_of(k, a, a) + to));
            }
    }

    // z = P'd, where d is zero for missing values.
    void whiten(int64_t k, int64_t at, double* z) const {
        const double *P = m.P + k * D * D, *mean = m.offsets + k * D;
        double* d = room + (D + 1) * D * V;
        for (int64_t j = 0; j < D; j++)
            EACH {
                const int64_t from = at + i * WIDTH;
                store(d + j * V + i * WIDTH, load(known + j * B + from) * (load(b.x_of(j) + from) - mean[j]));
            }
        for (int64_t j = 0; j < D; j++) {
            lanes s[R];
            EACH s[i] = lanes{};
            for (int64_t c = 0; c <= j; c++)
                EACH s[i] += P[c * D + j] * load(d + c * V + i * WIDTH);
            EACH store(z + j * V + i * WIDTH, s[i]);
        }
    }

    // The rows of P that belong to missing value a of each row, side by side; zero where a row misses fewer.
    void take_rows(int64_t k, int64_t at, int64_t a, double* v) const {
        const double* row[V];
        for (int64_t l = 0; l < V; l++)
            row[l] = a < n_missing[at + l] ? m.P + (k * D + missing[(at + l) * D + a]) * D : zeros;
        for (int64_t j = 0; j < D; j++)
            for (int64_t l = 0; l < V; l += WIDTH, v += WIDTH) {
                lanes x;
                UNROLL for (int64_t e = 0; e < WIDTH; e++) x[e] = row[l + e][j];
                store(v, x);
            }
    }

    void moments(double* packed) {
        const int64_t n_packed_of_one = n_packed() / m.K;
        for (int64_t k = 0; k < m.K; k++) {
            const double* mean = m.offsets + k * D;
            for (int64_t i = 0; i < B; i++)
                for (int64_t a = 0; a < n_missing[i]; a++) {
                    const int64_t j = missing[i * D + a];
                    b.x_of(j)[i] = mean[j] + x_of(k, a)[i];
                }
            Block one = b;
            one.joint = b.joint_of(k);
            steps.moments({1, D, m.log_scale + k, mean, m.P + k * D * D, 0, 0.0}, one, packed + k * n_packed_of_one);
            for (int64_t at = 0; at < B; at += WIDTH) add_covariances(k, at);
        }
    }

    // Responsibilities times (R'R)^-1 of WIDTH rows.
    void add_covariances(int64_t k, int64_t at) {
        double *inverse = room, *covariance = room + D * D * WIDTH;  // R^-1, by columns; lower triangle
        const double* r = b.joint_of(k) + at;
        for (int64_t c = 0; c < most; c++)
            for (int64_t a = c; a >= 0; a--) {
                lanes t = a == c ? splat(1.0) : lanes{};
                for (int64_t e = a + 1; e <= c; e++) t -= load(R_of(k, a, e) + at) * load(inverse + (c * D + e) * WIDTH);
                store(inverse + (c * D + a) * WIDTH, t * load(R_of(k, a, a) + at));
            }
        double* to = covariance;
        for (int64_t a = 0; a < most; a++)
            for (int64_t c = 0; c <= a; c++, to += WIDTH) {
                lanes t = {};
                for (int64_t e = a; e < most; e++) t += load(inverse + (e * D + a) * WIDTH) * load(inverse + (e * D + c) * WIDTH);
                store(to, t * load(r));
            }
        for (int64_t l = 0; l < WIDTH; l++) {
            if (r[l] == 0.0) continue;
            const double* from = covariance + l;
            const int64_t* column = missing + (at + l) * D;
            for (int64_t a = 0; a < n_missing[at + l]; a++)
                for (int64_t c = 0; c <= a; c++, from += WIDTH) extra[(k * D + column[a]) * D + column[c]] += *from;
        }
    }

    Status unpack(const double* packed, const Statistics& s) const {
        Alike::unpack(packed, s);
        for (int64_t k = 0; k < m.K; k++)
            for (int64_t i = 0; i < D; i++)
                for (int64_t j = 0; j < D; j++)
                    s.scatter[(k * D + i) * D + j] += extra[(k * D + (i > j ? i : j)) * D + (i > j ? j : i)];
        return DONE;
    }
};
