"""Laws of co-clustering, partitions and their comparison, held against enumeration and direct sums."""

import numpy as np
import pytest
from oracles import REFERENCE, direct_loss, errors_allowed, seed, table

import bayesgmm as bg
from bayesgmm.clusters.rows_under_draws import rows_under_draws
from bayesgmm.clusters.salso import drawn_partitions

LOSSES = ("vi", "binder")


@pytest.fixture(scope="module")
def faithful(faithful_posterior):
    return table("old_faithful"), faithful_posterior


@pytest.mark.statistical
def test_expected_binder_loss_agrees_with_the_similarity(overlapping_draws):
    m, X = overlapping_draws
    p = bg.partition(m, X, loss="binder", rng=seed())
    S = bg.posterior_similarity(m, X)
    together = p.labels[:, None] == p.labels
    exact = np.where(together, 1 - S, S).mean()
    spread = (
        drawn_partitions(rows_under_draws(m, X), "binder", np.random.default_rng(seed(5))).distances(p.labels).std()
    )
    assert abs(p.expected_loss - exact) < errors_allowed(df=119) * spread / np.sqrt(119)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_partition_is_no_worse_than_its_reference_and_any_draw(overlapping_draws, loss):
    m, X = overlapping_draws
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


def test_the_credible_ball_holds_its_probability_and_its_bounds(overlapping_draws):
    m, X = overlapping_draws
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


def test_what_cannot_be_used_is_refused(overlapping_draws):
    m, X = overlapping_draws
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
        (lambda: bg.partition(m, np.where(X[4] == X, np.inf, X)), "row 4"),
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
