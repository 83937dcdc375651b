// Products of the rows' scores, as kernel.hpp says. Included once by each level's kernel, inside that level's namespace.

constexpr double SURE = -1e-9;  // log responsibility above which a row adds nothing to what the sums bend
constexpr int64_t BATCH = 256;  // rows that are multiplied at a time

// Rows that are yet to be multiplied, feature by feature, and the lines that are made of them.
struct Batch {
    static constexpr int64_t width = BATCH + PAD;
    const Mixture& m;
    const int64_t of_one;  // coordinates of a component
    const Parts parts;
    int64_t n = 0;  // rows there are
    Array<double> memory;
    double *root_weight, *x, *r, *z, *own, *v;

    Batch(const Mixture& m)
        : m(m), of_one(1 + m.D + (m.diagonal ? m.D : m.D * (m.D + 1) / 2)), parts(of_one),
          memory((1 + 2 * m.D + m.K + of_one * (1 + m.K)) * width) {
        root_weight = memory;
        x = root_weight + width;
        r = x + m.D * width;
        z = r + m.K * width;
        own = z + m.D * width;
        v = own + of_one * width;
    }

    int64_t packed_block() const { return parts.n * parts.n * room_for(TILE * TILE); }

    void take(const Block& b, int64_t i) {
        root_weight[n] = __builtin_sqrt(b.weight[i]);
        for (int64_t j = 0; j < m.D; j++) x[j * width + n] = b.x_of(j)[i];
        for (int64_t k = 0; k < m.K; k++) r[k * width + n] = b.joint_of(k)[i] / b.weight[i];
        n++;
    }

    void fill_up() {
        for (double* line = memory; line < z; line += width)
            for (int64_t i = n; i < BATCH; i++) line[i] = 0.0;
    }

    // Lines of component k: sqrt(w) r T in v, and in `own` sqrt(w) (1 - r) T.
    void lines(int64_t k) {
        const double *P = m.P + k * m.D * m.D, *mean = m.offsets + k * m.D, *rk = r + k * width;
        double* to = v + k * of_one * width;
        auto put = [&](int64_t line, int64_t i, lanes T) {
            T *= load(root_weight + i);
            const lanes by = load(rk + i);
            store(to + line * width + i, by * T);
            store(own + line * width + i, (1.0 - by) * T);
        };
        for (int64_t i = 0; i < BATCH; i += WIDTH) {
            int64_t line = 0;
            put(line++, i, splat(1.0));
            for (int64_t j = 0; j < m.D; j++) {
                lanes t = lanes{};
                for (int64_t p = m.diagonal ? j : 0; p <= j; p++) t += P[p * m.D + j] * (load(x + p * width + i) - mean[p]);
                store(z + j * width + i, t);
                put(line++, i, t);
            }
            for (int64_t p = 0; p < m.D; p++)
                for (int64_t j = p; j < (m.diagonal ? p + 1 : m.D); j++)
                    put(line++, i, splat(p == j) - load(z + p * width + i) * load(z + j * width + i));
        }
    }

    template <int A>
    void part_times(const double* a, const double* c, int64_t q, double* packed) const {
        const Block b{BATCH, width, nullptr, nullptr, nullptr, nullptr, nullptr, const_cast<double*>(c),
                      const_cast<double*>(a)};
        const int64_t C = parts.size(q);
        if (C == TILE) tile<A, TILE>(b, parts.start(q), packed);
        if (C == TILE - 1) tile<A, TILE - 1>(b, parts.start(q), packed);
        if (C == TILE - 2) tile<A, TILE - 2>(b, parts.start(q), packed);
    }

    // Add the products of a component's lines with a component's lines.
    void times(const double* a, const double* c, double* packed) const {
        for (int64_t p = 0; p < parts.n; p++)
            for (int64_t q = 0; q < parts.n; q++, packed += room_for(TILE * TILE)) {
                const double* of_part = a + parts.start(p) * width;
                if (parts.size(p) == TILE) part_times<TILE>(of_part, c, q, packed);
                if (parts.size(p) == TILE - 1) part_times<TILE - 1>(of_part, c, q, packed);
                if (parts.size(p) == TILE - 2) part_times<TILE - 2>(of_part, c, q, packed);
            }
    }

    // Multiply the rows there are, and forget them.
    void multiply(bool scores, double* packed) {
        if (!n) return;
        fill_up();
        double* of_scores = packed + m.K * (m.K + 1) / 2 * packed_block();
        for (int64_t k = 0; k < m.K; k++) {
            double* vk = v + k * of_one * width;
            lines(k);
            for (int64_t l = 0; l < k; l++, packed += packed_block()) times(vk, v + l * of_one * width, packed);
            times(own, vk, packed);
            packed += packed_block();
            if (scores) times(vk, vk, of_scores + k * packed_block());
        }
        n = 0;
    }

    // Where the packed sums belong.
    void unpack(const double* packed, int64_t blocks, double* out) const {
        for (int64_t block = 0; block < blocks; block++, out += of_one * of_one)
            for (int64_t p = 0; p < parts.n; p++)
                for (int64_t q = 0; q < parts.n; q++, packed += room_for(TILE * TILE))
                    for (int64_t s = 0, C = parts.size(q); s < parts.size(p) * C; s++)
                        out[(parts.start(p) + s / C) * of_one + parts.start(q) + s % C] = packed[s];
    }
};

Status products(const Rows& rows, const View& view, const Mixture& m, int64_t start, int64_t stop, bool scores, double* out) {
    Alike w(rows, view, m, stop - start, false);
    Batch batch(m);
    const int64_t blocks = m.K * (m.K + 1) / 2 + (scores ? m.K : 0);
    Array<double> packed(blocks * batch.packed_block(), 0.0);
    if (missing(w.memory, batch.memory, packed)) return NO_MEMORY;
    const Block& b = w.b;
    for (int64_t begin = start; begin < stop; begin += w.B) {
        const int64_t n = (begin + w.B < stop ? begin + w.B : stop) - begin;
        for (int64_t i = 0; i < n; i++) b.weight[i] = rows.weight[rows.n_weights == 1 ? 0 : begin + i];
        for (int64_t i = n; i < w.B; i++) b.weight[i] = 0.0;
        w.joint(begin, begin + n);
        w.normalise();
        for (int64_t i = 0; i < n; i++) {
            if (b.weight[i] == 0.0 || (!scores && b.certainty[i] > SURE)) continue;
            batch.take(b, i);
            if (batch.n == BATCH) batch.multiply(scores, packed);
        }
    }
    batch.multiply(scores, packed);
    batch.unpack(packed, blocks, out);
    return DONE;
}
