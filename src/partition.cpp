// The search for the partition with the least expected loss (Dahl, Johnson & Müller 2022), and losses of partitions.
#include <math.h>
#include <string.h>

#include "api.hpp"
#include "memory.hpp"
#include "random.hpp"

// Partitions drawn from the posterior. An item stands for rows that share a cluster in every draw.
struct Partitions {
    int64_t U, S, K;        // items, draws, clusters of a draw at most
    const uint8_t* z;       // (U, S) cluster of each item in each draw
    const int64_t* weight;  // (U,) rows that an item stands for
    const double* phi;      // (rows + 1,) phi(n), the loss's function of a cluster's size
};

API int64_t gmm_sizeof_partitions() { return sizeof(Partitions); }

namespace {

// A partition that is being improved, with its contingency tables with all draws.
struct Candidate {
    const Partitions& of;
    const int64_t room;     // clusters at most
    int64_t* labels;        // (U,) -1 where an item is not allocated
    Array<int64_t> n;       // (room,) rows in each cluster
    Array<int32_t> table;   // (room, S, K) rows in each cluster and each of a draw's
    Array<double> rise;     // (rows + 1,) phi(n + w) - phi(n) for w = `rise_weight`
    int64_t rise_weight = 0, rows = 0;

    Candidate(const Partitions& of, int64_t room, int64_t* labels)
        : of(of), room(room), labels(labels), n(room, 0), table(room * of.S * of.K, 0), rise(rows_of(of) + 1),
          rows(rows_of(of)) {}

    static int64_t rows_of(const Partitions& of) {
        int64_t total = 0;
        for (int64_t u = 0; u < of.U; u++) total += of.weight[u];
        return total;
    }

    void add(int64_t u, int64_t a, int64_t w) {
        const uint8_t* z = of.z + u * of.S;
        int32_t* t = table + a * of.S * of.K;
        n[a] += w;
        for (int64_t s = 0; s < of.S; s++) t[s * of.K + z[s]] += int32_t(w);
    }

    // Put item u into cluster a, out of the one it was in; -1 stands for none.
    void put(int64_t u, int64_t a) {
        if (labels[u] >= 0) add(u, labels[u], -of.weight[u]);
        if (a >= 0) add(u, a, of.weight[u]);
        labels[u] = a;
    }

    // Sum over the draws of what phi of their clusters' shares of a rises by as item u joins it; without w rows there.
    double joint_rise(int64_t u, int64_t a, int64_t without) const {
        const uint8_t* z = of.z + u * of.S;
        const int32_t* t = table + a * of.S * of.K;
        double total[4] = {0.0, 0.0, 0.0, 0.0};
        int64_t s = 0;
        for (; s + 4 <= of.S; s += 4)
            for (int64_t i = 0; i < 4; i++) total[i] += rise[t[(s + i) * of.K + z[s + i]] - without];
        for (; s < of.S; s++) total[0] += rise[t[s * of.K + z[s]] - without];
        return (total[0] + total[1]) + (total[2] + total[3]);
    }

    // The cluster that item u adds least loss to: its own where nothing is better; one empty cluster is tried.
    int64_t best_cluster(int64_t u) {
        const int64_t w = of.weight[u], own = labels[u];
        if (w != rise_weight) {
            for (int64_t i = 0; i + w <= rows; i++) rise[i] = of.phi[i + w] - of.phi[i];
            rise_weight = w;
        }
        int64_t best = -1;
        double least = INFINITY;
        bool empty = false;
        for (int64_t a = 0; a < room; a++) {
            if (a != own && n[a] == 0) {
                if (empty) continue;
                empty = true;
            }
            const int64_t without = a == own ? w : 0;
            const double cost = rise[n[a] - without] - 2.0 * joint_rise(u, a, without) / double(of.S);
            if (cost < least - 1e-13 || (a == own && cost < least + 1e-13)) {
                best = a;
                least = fmin(cost, least);
            }
        }
        return best;
    }

    // Reallocate the items in the given order until none moves.
    void sweep(const int64_t* order) {
        bool moved = true;
        for (int times = 0; moved && times < 100; times++) {
            moved = false;
            for (int64_t i = 0; i < of.U; i++) {
                const int64_t u = order[i], a = best_cluster(u);
                if (a == labels[u]) continue;
                put(u, a);
                moved = true;
            }
        }
    }

    // Expected loss but for the part that does not depend on the partition.
    double loss() const {
        double total = 0.0;
        for (int64_t a = 0; a < room; a++) {
            if (n[a] == 0) continue;
            const int32_t* t = table + a * of.S * of.K;
            double both = 0.0;
            for (int64_t i = 0; i < of.S * of.K; i++) both += of.phi[t[i]];
            total += of.phi[n[a]] - 2.0 * both / double(of.S);
        }
        return total;
    }

    // Dissolve cluster a and allocate its items anew, in the given order; `before` becomes the labels there were.
    void rebuild(int64_t a, const int64_t* order, int64_t* before) {
        memcpy(before, labels, size_t(of.U) * 8);
        for (int64_t i = 0; i < of.U; i++)
            if (before[order[i]] == a) put(order[i], -1);
        for (int64_t i = 0; i < of.U; i++)
            if (before[order[i]] == a) put(order[i], best_cluster(order[i]));
        sweep(order);
    }
};

void permute(const Random& random, int64_t* order, int64_t n) {
    for (int64_t i = 0; i < n; i++) order[i] = i;
    random.shuffle(order, n);
}

}  // namespace

// Loss between labels (U,), of A clusters, and each drawn partition, losses (S,).
API int64_t gmm_losses(const Partitions* of, const int64_t* labels, int64_t A, double* losses) {
    constexpr int64_t AT_ONCE = 64;
    const int64_t S = of->S, K = of->K;
    Array<int64_t> n(A, 0), table(AT_ONCE * A * K);  // of some draws: rows in each cluster and each of the draw's
    if (missing(n, table)) return NO_MEMORY;
    double own = 0.0;
    for (int64_t u = 0; u < of->U; u++) n[labels[u]] += of->weight[u];
    for (int64_t a = 0; a < A; a++) own += of->phi[n[a]];
    for (int64_t begin = 0; begin < S; begin += AT_ONCE) {
        const int64_t some = S - begin < AT_ONCE ? S - begin : AT_ONCE;
        memset(table, 0, size_t(AT_ONCE * A * K) * 8);
        for (int64_t u = 0; u < of->U; u++) {
            const uint8_t* z = of->z + u * S + begin;
            int64_t* t = table + labels[u] * K;
            for (int64_t s = 0; s < some; s++) t[s * A * K + z[s]] += of->weight[u];
        }
        for (int64_t s = 0; s < some; s++) {
            double total = own;
            for (int64_t k = 0; k < K; k++) {
                int64_t drawn = 0;
                for (int64_t a = 0; a < A; a++) {
                    const int64_t both = table[(s * A + a) * K + k];
                    drawn += both;
                    total -= 2.0 * of->phi[both];
                }
                total += of->phi[drawn];
            }
            losses[begin + s] = fmax(total, 0.0);
        }
    }
    return DONE;
}

// Improve labels (U,) < room, -1 where an item is still to be allocated, in place: by sweeps, then by dissolving and
// rebuilding `zealous` clusters. The loss reached is the expected loss but for a part that all partitions have.
API int64_t gmm_minimise(const Partitions* of, int64_t room, int64_t zealous, const Random* random, int64_t* labels,
                         double* loss) {
    const int64_t U = of->U;
    Candidate candidate(*of, room, labels);
    Array<int64_t> order(U), clusters(room), before(U);
    if (missing(candidate.n, candidate.table, candidate.rise, order, clusters, before)) return NO_MEMORY;
    for (int64_t u = 0; u < U; u++)
        if (labels[u] >= 0) candidate.add(u, labels[u], of->weight[u]);
    permute(*random, order, U);
    candidate.sweep(order);
    double least = candidate.loss();
    bool improved = true;
    for (int64_t tries = 0; improved && tries < zealous;) {
        improved = false;
        permute(*random, clusters, room);
        for (int64_t i = 0; i < room && tries < zealous; i++) {
            if (candidate.n[clusters[i]] == 0) continue;
            tries++;
            permute(*random, order, U);
            candidate.rebuild(clusters[i], order, before);
            const double reached = candidate.loss();
            if (reached < least - 1e-13) {
                least = reached;
                improved = true;
            } else {
                for (int64_t u = 0; u < U; u++)
                    if (labels[u] != before[u]) candidate.put(u, before[u]);
            }
        }
    }
    *loss = least;
    return DONE;
}
