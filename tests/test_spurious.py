"""Laws of which maxima are spurious: those that a handful of rows makes, close to a line by chance."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
from oracles import table

import bayesgmm as bg
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.spurious import THIN, log_chance_subsets, widths
from bayesgmm.parts import Part, Parts


def gains(model, n, D, S, rng):
    """Log-likelihood that S samples of n rows of a standard normal gain by the normal that fits each best."""
    X = rng.normal(size=(S, n, D))
    m = X.mean(axis=1)
    C = np.einsum("sni,snj->sij", X - m[:, None], X - m[:, None]) / n
    trace = np.einsum("sii->s", C)
    log_det = {
        "VVV": lambda: np.linalg.slogdet(C)[1],
        "VVI": lambda: np.log(np.einsum("sii->si", C)).sum(axis=1),
        "VII": lambda: D * np.log(trace / D),
    }[model]()
    return n / 2 * (trace + (m**2).sum(axis=1) - D - log_det)


@pytest.mark.parametrize("model", ["VVV", "VVI", "VII"])
@pytest.mark.parametrize(("n", "D"), [(4, 1), (5, 2), (9, 3)])
def test_chance_gains_no_more_often_than_the_bound_says(model, n, D):
    drawn = np.sort(gains(model, n, D, 100_000, np.random.default_rng(0)))
    for share in (0.1, 0.01, 1e-3):
        gain = drawn[round((1 - share) * len(drawn))]
        bound = log_chance_subsets(n, 0.0, gain, D, CovarianceModel.named(model))
        assert np.log(share) < bound < np.log(share) + 4


def test_a_higher_gain_is_less_by_chance():
    for model in ("VVV", "VVI", "VEV"):
        bounds = [log_chance_subsets(6.5, 20.0, g, 3, CovarianceModel.named(model)) for g in range(0, 300, 10)]
        assert all(a >= b for a, b in pairwise(bounds))
        assert bounds[0] == 20
        assert bounds[-1] < -20
    assert log_chance_subsets(3.0, 20.0, 1e9, 3, CovarianceModel.named("VVV")) == 20  # no covariance at all


def refit(X, mixtures, model):
    """Of climbs from mixtures of another table: the heights where they end, and whether these are spurious."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.ConvergenceWarning)
        fits = [bg.fit_em(X, mixture.n_components, model, starts=[mixture]) for mixture in mixtures]
    return np.array([fit.log_likelihood for fit in fits]), [fit.spurious for fit in fits]


def mapped(mixture, A, b):
    return bg.GaussianMixture(mixture.weights, mixture.means @ A.T + b, A @ mixture.covariances @ A.T)


@pytest.mark.parametrize("model", ["VVV", "VVI", "VEI"])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_spurious_is_so_in_any_units_and_along_any_axes(model, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(80, 3)) @ rng.normal(size=(3, 3))
    mixtures = [m.mixture for m in bg.fit_em(X, 4, model, n_starts=100, rng=seed).maxima if m.mixture is not None]
    A = np.diag(rng.lognormal(0, 2, 3))[rng.permutation(3)]
    if "I" not in model:
        A = rng.normal(size=(3, 3)) @ A
    b, jacobian = rng.normal(size=3), len(X) * np.log(abs(np.linalg.det(A)))
    heights, spurious = refit(X, mixtures, model)
    there, spurious_there = refit(X @ A.T + b, [mapped(mixture, A, b) for mixture in mixtures], model)
    same = np.abs(there + jacobian - heights) < 1e-3
    assert same.mean() > 0.8
    assert np.array(spurious_there)[same].tolist() == np.array(spurious)[same].tolist()
    if model == "VVV":
        assert set(spurious) == {True, False}


@pytest.mark.parametrize("D", [1, 2, 3])
def test_rows_on_a_line_in_noise_are_no_cluster(D):
    thin = []
    for seed in range(8):
        X = np.random.default_rng(seed).normal(size=(120, D))
        for maximum in bg.fit_em(X, 2, n_starts=200, rng=0).maxima:
            mixture = maximum.mixture
            if mixture is not None and widths(mixture.covariances, mixture.weights).min() < THIN:
                thin.append(maximum.spurious)
    assert len(thin) > (4, 30, 40)[D - 1]
    assert np.mean(thin) > 0.97


def test_two_handfuls_do_not_make_each_other_real():
    """Two slices of one cluster, seven and eight rows: either is needed only where the other stays as it is."""
    rng = np.random.default_rng([99, 4])
    for _ in range(17):
        D, L = rng.integers(2, 4), rng.integers(4, 9)
        K, n, gap = rng.integers(3, min(L, 6)), rng.integers(8, 25), rng.choice([3, 4, 6, 8])
        X = np.concatenate([rng.normal(center, 1, (n, D)) for center in rng.normal(0, gap, (L, D))])
    labels = [int(k) for k in "3333333333302302023202222222222221111101001133333333323"]
    with pytest.warns(bg.ConvergenceWarning, match="by chance|chance puts"):
        fit = bg.fit_em(X, K, starts=[labels])
    width = widths(fit.mixture.covariances, fit.mixture.weights)
    assert (width < THIN).sum() == 2
    np.testing.assert_array_less(fit.n_observations * fit.mixture.weights[width < THIN], 9)
    assert fit.spurious


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.2])
def test_a_real_cluster_on_a_line_is_one(angle):
    """Thirty rows among two hundred, thirty times as narrow as these: no chance makes such."""
    rng = np.random.default_rng(0)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    X = np.r_[rng.normal(size=(200, 2)), rng.normal(size=(30, 2)) * [0.8, 0.03] + [0.0, 0.5]] @ turn
    fit = bg.fit_em(X, 2, starts=[np.r_[np.zeros(200, int), np.ones(30, int)]])
    assert fit.maxima[0].mixture.weights.min() * 230 == pytest.approx(30, abs=5)
    assert widths(fit.mixture.covariances, fit.mixture.weights).min() < THIN
    assert not fit.spurious


@pytest.mark.parametrize(
    ("name", "model", "K"),
    [
        *(("old_faithful", "full", K) for K in (2, 3)),
        *(("iris", "full", K) for K in (2, 3)),
        ("iris", "VEV", 3),
        *(("galaxies", "V", K) for K in range(2, 7)),
        *(("acidity", "V", K) for K in (2, 3, 4)),
        ("diabetes_fixed", "full", 3),
        ("thyroid", "full", 3),
        ("thyroid", "VVI", 4),
    ],
)
def test_clusters_of_known_tables_are_real(name, model, K):
    fit = bg.fit_em(table(name), K, model, rng=1)
    assert not fit.spurious
    near = [m for m in fit.maxima if m.log_likelihood > fit.log_likelihood]
    rows = fit.n_observations * np.array([m.mixture.weights.min() for m in near])
    np.testing.assert_array_less(rows, 4 * (fit.n_features + 1))  # what is passed over are handfuls


def test_whole_number_weights_are_repeated_rows():
    rng = np.random.default_rng(2)
    X, weight = rng.normal(size=(60, 2)), rng.integers(1, 3, 60)
    maxima = [m for m in bg.fit_em(X, 3, sample_weight=weight, n_starts=100, rng=0).maxima if m.mixture is not None]
    heights, spurious = refit(np.repeat(X, weight, axis=0), [m.mixture for m in maxima], "full")
    np.testing.assert_allclose(heights, [m.log_likelihood for m in maxima], atol=1e-3)
    assert spurious == [m.spurious for m in maxima]
    assert set(spurious) == {True, False}


def test_rows_whose_component_is_known_are_not_chosen_by_chance():
    rng = np.random.default_rng(4)
    X = np.r_[rng.normal(size=(60, 2)), rng.normal(size=(7, 2)) * [1, 0.03]]
    labelled = bg.fit_em(X, 2, labels=np.r_[np.zeros(60, int), np.ones(7, int)])
    assert not labelled.spurious
    assert refit(X, [labelled.mixture], "full")[1] == [True]


def test_a_thin_cluster_of_a_table_in_parts_is_judged_by_the_sample_as_of_all_rows(monkeypatch):
    """Two thousand rows in a line are real among ten thousand, of which a sample of two thousand is looked at."""
    monkeypatch.setattr("bayesgmm.em.large.SAMPLE_ROWS", 2000)
    rng = np.random.default_rng(6)
    X = np.concatenate([rng.normal(size=(8000, 2)), rng.normal([1.0, 0.5], [0.02, 1.0], size=(2000, 2))])
    rng.shuffle(X)
    table = Parts((Part("rows", len(X), lambda start, stop: X[start:stop]),), ("a", "b"), named=False)
    fit = bg.fit_em(table, 2, rng=0)
    assert widths(fit.mixture.covariances, fit.mixture.weights).min() < THIN
    assert not fit.spurious
