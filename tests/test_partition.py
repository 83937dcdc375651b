"""Laws of co-clustering, partitions and their comparison, held against enumeration and direct sums."""

from itertools import permutations

import numpy as np
import pytest
from oracles import REFERENCE, deviation_allowed, errors_allowed, random_mixture, seed, table
from sklearn.metrics import adjusted_rand_score, mutual_info_score

import bayesgmm as bg
from bayesgmm.clusters import rows_under_draws as rows_module, similarity
from bayesgmm.clusters.assignment import equal_tailed
from bayesgmm.clusters.rows_under_draws import rows_under_draws
from bayesgmm.clusters.salso import drawn_partitions, grouped

LOSSES = ("vi", "binder")


def all_partitions(n):
    """Every partition of n rows, as labels by first appearance."""

    def grow(labels, used):
        if len(labels) == n:
            yield labels
            return
        for a in range(used + 1):
            yield from grow([*labels, a], max(used, a + 1))

    return np.array(list(grow([0], 1)))


def direct_loss(a, b, loss):
    if loss == "binder":
        return ((a[:, None] == a) != (b[:, None] == b)).mean()
    both = (b.max() + 1) * a + b

    def entropy(c):
        p = np.bincount(c)[np.unique(c)] / len(c)
        return -(p * np.log(p)).sum()

    return 2 * entropy(both) - entropy(a) - entropy(np.unique(b, return_inverse=True)[1])


@pytest.fixture(scope="module")
def overlapping():
    """Draws of an overlapping mixture and rows of it."""
    rng = np.random.default_rng(0)
    one = random_mixture(rng, 3, 2)
    means = one.means + 0.2 * rng.normal(size=(2, 60, 3, 2))
    batch = bg.GaussianMixture(
        np.broadcast_to(one.weights, (2, 60, 3)), means, np.broadcast_to(one.covariances, (2, 60, 3, 2, 2))
    )
    return batch, one.sample(90, rng=1)[0]


@pytest.fixture(scope="module")
def faithful(faithful_posterior):
    return table("old_faithful"), faithful_posterior


@pytest.mark.parametrize(("K", "D", "S"), [(1, 1, 3), (2, 3, 8), (3, 2, 30), (5, 7, 17)])
def test_the_kernel_under_all_draws_equals_the_mixtures_one_by_one(K, D, S):
    rng = np.random.default_rng(K)
    m, X = random_mixture(rng, K, D, batch=(S,)), rng.normal(size=(37, D)) * 3
    X[3] = 1e4  # far from everything
    draws = rows_under_draws(m, X)
    block = draws.block(X)
    R = np.moveaxis(m.responsibilities(X), 0, -1)
    np.testing.assert_allclose(block.responsibilities, R, rtol=1e-7, atol=1e-13)
    np.testing.assert_allclose(block.log_prob, m.log_prob(X).T, rtol=1e-12)
    entropy = -(R * np.log(np.maximum(R, 1e-300))).sum(axis=1)
    np.testing.assert_allclose(block.entropy, entropy, atol=1e-12)
    np.testing.assert_allclose(draws.log_predictive(X[:3]), np.log(np.exp(m.log_prob(X[:3])).mean(axis=0)), rtol=1e-12)
    np.testing.assert_array_equal(draws.block(X, slice(0, 3)).log_prob, block.log_prob[:, :3])


@pytest.mark.parametrize("ci_prob", [0.01, 0.5, 0.89, 0.999])
def test_interval_ends_are_numpys_quantiles(ci_prob):
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 4, 5, 10, 101, 1000):
        values = rng.beta(0.3, 2, size=(5, 3, n))
        expected = np.quantile(values, [(1 - ci_prob) / 2, (1 + ci_prob) / 2], axis=-1)
        np.testing.assert_allclose(equal_tailed(values, ci_prob), expected, rtol=1e-12)


def test_tail_probability_is_the_share_of_new_rows_with_no_higher_density():
    one = bg.GaussianMixture([[1.0]], [[[0.0]]], [[[[1.0]]]])  # density falls with |x|: the tail is 2 (1 - Phi(|x|))
    a = bg.assign(one, [[0.0], [1.0], [-1.959964], [2.575829], [9.0]], rng=0)
    expected = np.array([1.0, 0.317311, 0.05, 0.01, 0.0])  # of 10 000 rows
    assert (np.abs(a.tail_probability - expected) <= deviation_allowed(expected, 10_000, comparisons=5)).all()
    np.testing.assert_array_equal(
        a.tail_probability, bg.assign(one, [[0.0], [1], [-1.959964], [2.575829], [9]], rng=0).tail_probability
    )


def test_labels_come_with_their_probability_and_interval(overlapping):
    m, X = overlapping
    a = bg.assign(m, X)
    rows = np.arange(len(X))
    np.testing.assert_array_equal(a.label_probability, a.probabilities.max(axis=1))
    np.testing.assert_array_equal(a.label_lower, a.lower[rows, a.labels])
    np.testing.assert_array_equal(a.label_upper, a.upper[rows, a.labels])
    np.testing.assert_allclose(a.overlap + a.mutual_information, a.entropy)
    rows_of = a.to_dataframe()
    assert len(rows_of) == len(X)
    np.testing.assert_array_equal(rows_of["probability_2"], a.probabilities[:, 2])


def test_similarity_is_the_mean_of_the_products_of_responsibilities(overlapping, monkeypatch):
    m, X = overlapping
    R = m.responsibilities(X).reshape(120, len(X), 3)
    expected = np.einsum("sik,sjk->ij", R, R) / 120
    np.fill_diagonal(expected, 1)
    np.testing.assert_allclose(bg.posterior_similarity(m, X), expected, rtol=1e-12)
    monkeypatch.setattr(similarity, "_CHUNK_BYTES", 1e5)  # several chunks of draws, the last one shorter
    S = bg.posterior_similarity(m, X)
    np.testing.assert_allclose(S, expected, rtol=1e-12)
    np.testing.assert_array_equal(S, S.T)
    single = bg.posterior_similarity(m, X, dtype=np.float32)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=2e-6)
    rows = [5, 3, 80]
    np.testing.assert_allclose(bg.posterior_similarity(m, X, rows=rows), expected[np.ix_(rows, rows)], rtol=1e-12)
    mask = np.isin(np.arange(len(X)), rows)
    np.testing.assert_allclose(bg.posterior_similarity(m, X, rows=mask), expected[np.ix_(mask, mask)], rtol=1e-12)


def test_similarity_does_not_depend_on_labels(overlapping):
    m, X = overlapping
    order = np.random.default_rng(0).permuted(np.broadcast_to(np.arange(3), (2, 60, 3)), axis=-1)
    np.testing.assert_allclose(bg.posterior_similarity(m.permute(order), X), bg.posterior_similarity(m, X), rtol=1e-12)


@pytest.mark.statistical
def test_similarity_is_how_often_drawn_assignments_agree(overlapping):
    """The assignments of every draw are drawn fifty times, independently."""
    m, X = overlapping
    draws = rows_under_draws(m, X)
    z = np.concatenate([draws.assignments(np.random.default_rng(seed(i))) for i in range(50)], axis=1)
    agree = (z[:10, None] == z[None]).mean(axis=2)
    p = bg.posterior_similarity(m, X)[:10]
    assert (np.abs(agree - p) <= deviation_allowed(np.minimum(p, 1.0), z.shape[1], comparisons=p.size)).all()


def test_a_matrix_beyond_the_memory_budget_is_refused(overlapping, monkeypatch):
    m, X = overlapping
    monkeypatch.setattr(similarity, "MEMORY_BUDGET", 8 * 50**2)
    with pytest.raises(bg.InputError, match=r"at most 50 rows .*float32"):
        bg.posterior_similarity(m, X)
    assert bg.posterior_similarity(m, X, rows=range(50)).shape == (50, 50)
    for rows in ([90], [-1], [0.5], []):
        with pytest.raises(bg.InputError, match="rows"):
            bg.posterior_similarity(m, X, rows=rows)
    with pytest.raises(bg.InputError, match="dtype"):
        bg.posterior_similarity(m, X, dtype=np.float16)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_equal_the_direct_computation(overlapping, loss):
    m, X = overlapping
    drawn = drawn_partitions(rows_under_draws(m, X), loss, np.random.default_rng(0))
    a = np.random.default_rng(1).integers(0, 4, len(X))
    fast = drawn.distances(a)
    slow = [direct_loss(a, labels, loss) for labels in drawn.labels.T.astype(int)]
    np.testing.assert_allclose(fast, slow, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_search_finds_the_best_of_all_partitions(loss):
    candidates = all_partitions(8)
    assert len(candidates) == 4140  # Bell's number
    for case in range(12):
        rng = np.random.default_rng(case)
        m, X = random_mixture(rng, 3, 2, batch=(25,)), rng.normal(size=(8, 2)) * 2
        best = bg.partition(m, X, loss=loss, rng=case)
        drawn = drawn_partitions(rows_under_draws(m, X), loss, np.random.default_rng(case))
        losses = [drawn.distances(c).mean() for c in candidates]
        assert best.expected_loss == pytest.approx(min(losses), abs=1e-12)
        assert best.expected_loss == pytest.approx(
            np.mean([direct_loss(best.labels, c, loss) for c in drawn.labels.T.astype(int)])
        )


@pytest.mark.parametrize("loss", LOSSES)
def test_moving_equal_rows_as_one_loses_nothing(loss):
    m, X = random_mixture(np.random.default_rng(3), 3, 2, batch=(20,)), np.zeros((8, 2))
    labels = np.random.default_rng(3).integers(0, 3, size=(4, 20)).astype(np.uint8)[[0, 0, 1, 2, 2, 2, 3, 3]]
    drawn = drawn_partitions(rows_under_draws(m, X), loss, np.random.default_rng(0))._replace(labels=labels)
    items, item = grouped(drawn)
    np.testing.assert_array_equal(items.labels[item], labels)
    best = np.full(len(items.labels), -1)
    items.minimise(best, len(best), 10, np.random.default_rng(0))
    least = min(drawn.distances(c).mean() for c in all_partitions(8))
    assert items.distances(best).mean() == pytest.approx(least, abs=1e-12)


@pytest.mark.statistical
def test_expected_binder_loss_agrees_with_the_similarity(overlapping):
    m, X = overlapping
    p = bg.partition(m, X, loss="binder", rng=seed())
    S = bg.posterior_similarity(m, X)
    together = p.labels[:, None] == p.labels
    exact = np.where(together, 1 - S, S).mean()
    spread = (
        drawn_partitions(rows_under_draws(m, X), "binder", np.random.default_rng(seed(5))).distances(p.labels).std()
    )
    assert abs(p.expected_loss - exact) < errors_allowed(df=119) * spread / np.sqrt(119)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_partition_is_no_worse_than_its_reference_and_any_draw(overlapping, loss):
    m, X = overlapping
    draws = rows_under_draws(m, X)
    z = drawn_partitions(draws, loss, np.random.default_rng(0)).labels
    for reference in (z[:, 0], z[:, 7], np.arange(len(X)) % 5, np.zeros(len(X), int)):
        p = bg.partition(m, X, loss=loss, reference=reference, rng=0)
        assert p.gain >= 0
        assert p.reference_loss == pytest.approx(
            np.mean([direct_loss(reference.astype(int), c, loss) for c in z.T.astype(int)])
        )


def test_labels_of_a_partition_follow_the_components(faithful):
    _, tree = faithful
    p = bg.partition(tree, rng=0)
    np.testing.assert_array_equal(p.components, [0, 1])
    assert (p.labels == p.reference_labels).mean() > 0.97
    one = bg.partition(tree, max_clusters=1, rng=0)
    assert one.n_clusters == 1
    assert one.components[0] == 1
    assert one.expected_loss > p.expected_loss


def test_the_credible_ball_holds_its_probability_and_its_bounds(overlapping):
    m, X = overlapping
    p = bg.partition(m, X, rng=0)
    ball = bg.credible_ball(m, p, X, probability=0.8, rng=1)
    z = drawn_partitions(rows_under_draws(m, X), "vi", np.random.default_rng(1)).labels.astype(int)
    distances = np.array([direct_loss(p.labels, c, "vi") for c in z.T])
    np.testing.assert_allclose(ball.distances, distances, atol=1e-12)
    counts = np.array([len(np.unique(c)) for c in z.T])
    np.testing.assert_array_equal(ball.n_clusters, counts)
    inside = distances <= ball.radius + 1e-12
    assert inside.mean() >= 0.8 > (distances < ball.radius - 1e-12).mean()
    assert ball.horizontal_distance == pytest.approx(ball.radius)
    for bound, distance, few in (
        (ball.upper, ball.upper_distance, counts[inside].min()),
        (ball.lower, ball.lower_distance, counts[inside].max()),
    ):
        assert len(np.unique(bound)) == few
        assert direct_loss(p.labels, np.unique(bound, return_inverse=True)[1], "vi") == pytest.approx(distance)
        assert distance == pytest.approx(distances[inside & (counts == few)].max())
    agreement = (ball.horizontal == p.labels).mean()
    assert agreement == pytest.approx(1 - bg.misclassification(ball.horizontal, p.labels))


def test_degenerate_sizes_have_their_answers():
    one = bg.GaussianMixture(np.ones((5, 1)), np.zeros((5, 1, 1)), np.ones((5, 1, 1, 1)))
    for X in ([[0.0]], [[0.0], [1.0], [5.0]]):
        a, p = bg.assign(one, X), bg.partition(one, X, rng=0)
        np.testing.assert_array_equal(a.probabilities, 1)
        np.testing.assert_array_equal(a.entropy, 0)
        assert p.n_clusters == 1
        assert p.expected_loss == 0
        assert np.isnan(p.reference_loss)
        np.testing.assert_array_equal(bg.posterior_similarity(one, X), np.ones((len(X), len(X))))
        assert bg.credible_ball(one, p, X, rng=0).radius == 0


def test_what_cannot_be_used_is_refused(overlapping):
    m, X = overlapping
    p = bg.partition(m, X, n_runs=0, rng=0)
    fit = bg.fit_em(X, 2, rng=0)
    single = bg.GaussianMixture(m.weights[0, 0], m.means[0, 0], m.covariances[0, 0])
    for call, what in (
        (lambda: bg.partition(m, X, loss="vl"), "'vi' or 'binder'"),
        (lambda: bg.partition(m), "give the rows"),
        (lambda: bg.partition(fit), "needs a posterior, not an EM fit"),
        (lambda: bg.partition(single, X), "no batch axis"),
        (lambda: bg.partition(3), "not int"),
        (lambda: bg.partition(m, X[:, :1]), "1 columns, the draws 2 features"),
        (lambda: bg.partition(m, np.empty((0, 2))), "no rows"),
        (lambda: bg.partition(m, np.where(X[4] == X, np.nan, X)), "row 4"),
        (lambda: bg.partition(m, X, max_clusters=0), "max_clusters"),
        (lambda: bg.partition(m, X, reference=[0, 1]), "2 labels for 90 rows"),
        (lambda: bg.credible_ball(m, p.labels, X), "the result of partition"),
        (lambda: bg.credible_ball(m, p, X[:5]), "of 90 rows, the posterior of 5"),
        (lambda: bg.credible_ball(m, p, X, probability=95), "probability"),
        (lambda: bg.partition_scores(m, [1, 2], X), "2 labels for 90 rows"),
        (lambda: bg.partition_scores(m, p.labels, X, ci_prob=2), "ci_prob"),
        (lambda: bg.adjusted_rand([0, 1], [0]), "2 and 1 rows"),
        (lambda: bg.adjusted_rand([], []), "one label for each row"),
        (lambda: bg.misclassification([0, np.nan], [0, 1]), "no label for row 1"),
        (lambda: bg.misclassification(["a", "b"], [None, "b"]), "no label for row 0"),
    ):
        with pytest.raises(bg.InputError, match=what):
            call()


def test_scores_equal_scikit_learns_and_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(40):
        n, A, B = rng.integers(2, 30), rng.integers(1, 5), rng.integers(1, 5)
        a, b = rng.integers(0, A, n), rng.integers(0, B, n)
        assert bg.adjusted_rand(a, b) == pytest.approx(adjusted_rand_score(a, b))
        vi = mutual_info_score(a, a) + mutual_info_score(b, b) - 2 * mutual_info_score(a, b)
        assert bg.variation_of_information(a, b) == pytest.approx(vi, abs=1e-12)
        wrong = min((np.array(names)[a] != b).mean() for names in permutations(range(4), 4))
        assert bg.misclassification(a, b) == pytest.approx(wrong)
        assert bg.misclassification(a, b) == pytest.approx(bg.misclassification(b, a))


def test_scores_of_the_posterior_are_over_drawn_partitions(overlapping):
    m, X = overlapping
    known = np.array(["one", "two", "three"])[m.predict(X)[0, 0]]
    scores = bg.partition_scores(m, known, X, ci_prob=0.5, rng=0)
    z = drawn_partitions(rows_under_draws(m, X), "vi", np.random.default_rng(0)).labels
    for name in ("adjusted_rand", "variation_of_information", "misclassification"):
        score, function = getattr(scores, name), getattr(bg, name)
        values = [function(c, known) for c in z.T]
        assert score.mean == pytest.approx(np.mean(values))
        np.testing.assert_allclose([score.lower, score.upper], np.quantile(values, [0.25, 0.75]))
        assert score.point == pytest.approx(function(bg.assign(m, X).labels, known))


def test_results_do_not_depend_on_the_blocks(overlapping, monkeypatch):
    m, X = overlapping
    whole = bg.assign(m, X)
    monkeypatch.setattr(rows_module, "_BLOCK_BYTES", 1.0)
    small = bg.assign(m, X)
    for name in ("probabilities", "lower", "upper", "overlap", "log_prob"):
        np.testing.assert_allclose(getattr(small, name), getattr(whole, name), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.statistical
def test_thyroid_patients_are_classified_as_well_as_published():
    """A Bayesian mixture's published misclassification is 0.037 and its adjusted Rand index 0.878."""
    X = table("thyroid")
    known = [line.split(",")[-1] for line in (REFERENCE / "thyroid.csv").read_text().split()[1:]]
    tree = bg.sample_posterior(X, bg.fit_em(X, 3, rng=0), draws=500, chains=2, rng=seed())
    for labels in (bg.assign(tree).labels, bg.partition(tree, rng=seed()).labels):
        assert bg.misclassification(labels, known) <= 0.045
        assert bg.adjusted_rand(labels, known) >= 0.85
    scores = bg.partition_scores(tree, known, rng=0)
    assert scores.adjusted_rand.lower < scores.adjusted_rand.mean < scores.adjusted_rand.upper
