"""Laws of the 14 covariance models and their M-step."""

import numpy as np
import pytest
from oracles import reference
from scipy.optimize import minimize

from bayesgmm.covariance import NAMES, CovarianceModel, constrained_covariances, precision_cholesky
from bayesgmm.errors import InputError

FREEDOM = {"I": 0, "E": 1, "V": 2}
NESTED = [
    (a, b) for a in NAMES for b in NAMES if a != b and all(FREEDOM[p] <= FREEDOM[q] for p, q in zip(a, b, strict=True))
]


def scatters(K, D, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.uniform(20, 60, size=K)
    Z = rng.normal(size=(K, 40, D)) @ (rng.normal(size=(K, D, D)) + np.eye(D))
    return counts, np.swapaxes(Z, 1, 2) @ Z


def maximised(name, counts, W):
    covariances = np.empty_like(W)
    constrained_covariances(CovarianceModel.named(name), counts, W, False, covariances)
    return covariances


def objective(counts, W, covariances):
    distances = np.trace(np.linalg.solve(covariances, W), axis1=1, axis2=2)
    return -0.5 * (counts * np.linalg.slogdet(covariances)[1] + distances).sum()


def build(name, K, D, parameters):
    """Covariances from free parameters: log volume, log shape, and the rotation by Cayley's transform."""
    used = 0

    def take(letter, size):
        nonlocal used
        if letter == "I":
            return np.zeros((K, size))
        copies = 1 if letter == "E" else K
        values = parameters[used : used + copies * size].reshape(copies, size)
        used += copies * size
        return np.broadcast_to(values, (K, size))

    volume, shape, rotation = take(name[0], 1), take(name[1], D - 1), take(name[2], D * (D - 1) // 2)
    G = np.zeros((K, D, D))
    G[:, *np.triu_indices(D, 1)] = rotation
    skew = G - G.swapaxes(1, 2)
    Q = np.linalg.solve(np.eye(D) - skew, np.eye(D) + skew)
    eigenvalues = np.exp(volume + np.concatenate([shape, -shape.sum(axis=1, keepdims=True)], axis=1))
    return (Q * eigenvalues[:, None]) @ Q.swapaxes(1, 2), used


@pytest.mark.parametrize("name", NAMES)
def test_m_step_reaches_what_a_general_optimiser_reaches(name):
    K, D = 2, 2
    counts, W = scatters(K, D)
    size = build(name, K, D, np.zeros(100))[1]
    rng = np.random.default_rng(1)
    best = min(
        minimize(lambda p: -objective(counts, W, build(name, K, D, p)[0]), 0.5 * rng.normal(size=size)).fun
        for _ in range(6)
    )
    assert objective(counts, W, maximised(name, counts, W)) == pytest.approx(-best, abs=1e-5)


@pytest.mark.parametrize(("simple", "free"), NESTED)
def test_a_freer_model_is_at_least_as_good(simple, free):
    for K, D in ((2, 3), (3, 4), (4, 6)):
        counts, W = scatters(K, D, seed=D)
        low, high = (objective(counts, W, maximised(name, counts, W)) for name in (simple, free))
        assert low <= high + 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_factors_are_shared_as_the_name_says(name):
    counts, W = scatters(3, 4, seed=9)
    covariances = maximised(name, counts, W)
    volume = np.exp(np.linalg.slogdet(covariances)[1] / 4)
    shape = np.linalg.eigvalsh(covariances) / volume[:, None]
    shared_axes = (
        np.abs(covariances[0] @ covariances[1] - covariances[1] @ covariances[0]).max() < 1e-6 * volume.max() ** 2
    )
    assert np.allclose(volume, volume[0]) == (name[0] == "E")
    assert np.allclose(shape, shape[0], rtol=1e-5) == (name[1] != "V")
    assert np.allclose(shape, 1.0) == (name[1] == "I")
    assert shared_axes == (name[2] != "V")
    assert np.allclose(covariances, covariances * np.eye(4)) == (name[2] == "I")


@pytest.mark.parametrize("table", ["iris", "faithful", "diabetes_fixed", "acidity"])
def test_parameter_counts_are_mclusts(table):
    entry = reference(f"{table}.json")
    D = entry["d"]
    for row in entry["table"]:
        K, name = row["G"], row["model"]
        if row.get("df") is not None and K > 1:
            model = CovarianceModel.named(name).for_features(D)
            assert K - 1 + K * D + model.n_parameters(K, D) == row["df"], (name, K)


def test_precision_factor_inverts_the_covariance():
    for D in (1, 2, 5, 12):
        _, W = scatters(1, D, seed=D)
        P = np.empty((D, D))
        assert 0 < precision_cholesky(W[0], P) <= 1
        np.testing.assert_allclose(P @ P.T @ W[0], np.eye(D), atol=1e-7)
        np.testing.assert_array_equal(P, np.triu(P))


def test_singular_covariance_has_no_factor():
    P = np.empty((2, 2))
    assert precision_cholesky(np.ones((2, 2)), P) == 0
    assert precision_cholesky(np.zeros((2, 2)), P) == 0
    assert precision_cholesky(np.full((2, 2), np.nan), P) == 0
    assert precision_cholesky(np.array([[-1e-20]]), np.empty((1, 1))) == 0


@pytest.mark.parametrize("name", ["ful", "VIV", "", 3, None])
def test_an_unknown_model_is_refused_with_the_choices(name):
    with pytest.raises(InputError, match="full, tied, diag, spherical"):
        CovarianceModel.named(name)


def test_one_feature_has_two_models():
    names = {CovarianceModel.named(name).for_features(1).label(1) for name in (*NAMES, "E", "V", "full")}
    assert names == {"E", "V"}
