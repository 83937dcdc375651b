"""Laws of rows with missing values or errors: exact arithmetic, marginals, complete rows in the limit."""

import json
import tracemalloc
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from oracles import REFERENCE, random_mixture

import bayesgmm as bg
from bayesgmm.expectation import Parameters, Rows, expected_statistics, log_joint, log_prob
from bayesgmm.observations import any_rows
from bayesgmm.patterns import Patterns

REAL = REFERENCE / "real"
EXACT = json.loads((REAL / "exact_loglik.json").read_text())
WITHOUT_NOISE = [name for name in EXACT if "noise" not in name]


def real_table(name):
    """A reference table as `Observations`: sds of errors are in the columns called sd_..., if there are any."""
    frame = pd.read_csv(REAL / f"{name}.csv")
    sd = [column for column in frame if column.startswith("sd_")]
    values = frame.drop(columns=sd)
    if not sd:
        return any_rows(values)
    sds = frame[sd].to_numpy()
    if "full" not in name:
        return any_rows(values, error_sd=sds)
    correlation = 0.5 + 0.5 * np.eye(len(sd))
    return any_rows(values, error_covariance=sds[:, :, None] * sds[:, None, :] * correlation)


def statistics_of(mixture, table, diagonal=False):
    center = mixture.mean
    parameters = Parameters(mixture.log_scale, mixture.means - center, mixture.precisions_cholesky)
    return expected_statistics(table.rows(center), parameters, diagonal)


def gradients(mixture, statistics):
    """Of the log-likelihood: d/d means (K, D), and twice d/d covariances (K, D, D)."""
    precisions = np.linalg.inv(mixture.covariances)
    by_means = np.einsum("kij,kj->ki", precisions, statistics.first)
    return by_means, precisions @ statistics.scatter @ precisions - statistics.counts[:, None, None] * precisions


def close(ours, exact, rtol=1e-12):
    exact = np.asarray(exact, dtype=float)
    np.testing.assert_allclose(ours, exact, rtol=0, atol=rtol * np.abs(exact).max())


def regrouped(table, least):
    """The same rows, in groups of at least so many, the others alone."""
    table = replace(table)
    vars(table)["patterns"] = Patterns.of(table.missing, table.errors, least)
    return table


@pytest.mark.parametrize("least", [1, 1000], ids=["in groups", "alone"])
@pytest.mark.parametrize("name", WITHOUT_NOISE)
def test_everything_equals_exact_arithmetic(name, least):
    exact, table = EXACT[name], regrouped(real_table(name), least)
    mixture = bg.GaussianMixture(**exact["parameters"])
    log_likelihood, _, statistics = statistics_of(mixture, table)
    by_means, by_covariances = gradients(mixture, statistics)
    assert log_likelihood == pytest.approx(float(exact["log_likelihood"]), rel=1e-12)
    close(statistics.counts + len(table.empty) * mixture.weights, exact["counts"])
    close(by_means, exact["d_loglik_d_means"], 1e-11)
    close(by_covariances, exact["twice_d_loglik_d_covariances"], 1e-11)
    log_prob, responsibilities = mixture.log_prob(table), mixture.responsibilities(table)
    for row, value in exact["log_prob_of_rows"]:
        assert log_prob[row] == pytest.approx(float(value), rel=1e-12)
    for row, values in exact["responsibilities_of_rows"]:
        np.testing.assert_allclose(responsibilities[row], np.array(values, dtype=float), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("D", [1, 2, 3, 5, 9])
def test_a_row_with_missing_values_has_the_density_of_the_marginal(D):
    rng = np.random.default_rng(D)
    mixture, X = random_mixture(rng, 3, D), rng.normal(size=(40, D))
    X[rng.random(X.shape) < 0.4] = np.nan
    log_joint, log_prob = mixture.log_joint(X), mixture.log_prob(X)
    for row in range(len(X)):
        there = np.flatnonzero(~np.isnan(X[row]))
        if there.size:
            marginal = mixture.marginal(there)
            np.testing.assert_allclose(log_joint[row], marginal.log_joint(X[row, there][None])[0], rtol=1e-11)
            np.testing.assert_allclose(log_prob[row], marginal.log_prob(X[row, there][None])[0], rtol=1e-11)
        else:
            np.testing.assert_allclose(log_joint[row], np.log(mixture.weights), rtol=1e-12)
            assert log_prob[row] == 0.0


@pytest.mark.parametrize("kind", ["own", "shared", "correlated"])
def test_errors_add_to_the_covariances(kind):
    rng = np.random.default_rng(1)
    mixture, X = random_mixture(rng, 2, 3), rng.normal(size=(20, 3))
    A = rng.normal(size=(20, 3, 3))
    S = {"own": A**2 * np.eye(3), "shared": (A[:1] ** 2) * np.eye(3), "correlated": A @ np.swapaxes(A, 1, 2)}[kind]
    S = np.broadcast_to(S, (20, 3, 3))
    if kind == "correlated":
        given = {"error_covariance": S}
    else:
        sd = np.sqrt(np.einsum("ijj->ij", S))
        given = {"error_sd": sd[0] if kind == "shared" else sd}
    log_joint = mixture.log_joint(X, **given)
    for row in range(20):
        wider = bg.GaussianMixture(mixture.weights, mixture.means, mixture.covariances + S[row])
        np.testing.assert_allclose(log_joint[row], wider.log_joint(X[row][None])[0], rtol=1e-11)


@pytest.mark.parametrize("diagonal", [False, True])
def test_a_value_with_an_error_without_bound_is_as_good_as_missing(diagonal):
    rng = np.random.default_rng(2)
    mixture, X = random_mixture(rng, 2, 4), rng.normal(size=(60, 4))
    if diagonal:
        mixture = bg.GaussianMixture(mixture.weights, mixture.means, mixture.covariances * np.eye(4))
    gone = rng.random(X.shape) < 0.3
    sd = np.where(gone, 1e8, 0.0)
    vague = statistics_of(mixture, any_rows(X, error_sd=sd), diagonal)[2]
    missing = statistics_of(mixture, any_rows(np.where(gone, np.nan, X)), diagonal)[2]
    empty = gone.all(axis=1).sum()  # rows that say nothing are in the counts of the one, not of the other
    np.testing.assert_allclose(vague.counts - missing.counts, empty * mixture.weights, atol=1e-9)
    by_vague, by_missing = gradients(mixture, vague), gradients(mixture, missing)
    for one, other in zip(by_vague, by_missing, strict=True):
        np.testing.assert_allclose(one * np.eye(4) if diagonal and one.ndim == 3 else one, other, atol=1e-6)


def test_a_constant_error_is_a_wider_component():
    """With S the same for all rows, statistics are those of complete rows under covariances + S, drawn back."""
    rng = np.random.default_rng(3)
    mixture, X, S = random_mixture(rng, 2, 3), rng.normal(size=(80, 3)), np.diag([0.3, 0.1, 0.5])
    wider = bg.GaussianMixture(mixture.weights, mixture.means, mixture.covariances + S)
    value, certainty, statistics = statistics_of(mixture, any_rows(X, error_covariance=S))
    plain_value, plain_certainty, plain = statistics_of(wider, any_rows(X))
    assert value == pytest.approx(plain_value, rel=1e-13)
    assert certainty == pytest.approx(plain_certainty, rel=1e-12)
    for one, other in zip(gradients(mixture, statistics), gradients(wider, plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-9)


def test_rescaling_a_column_shifts_by_its_known_values():
    rng = np.random.default_rng(4)
    mixture, X, c = random_mixture(rng, 3, 2), rng.normal(size=(50, 2)), 7.0
    X[rng.random(X.shape) < 0.3] = np.nan
    units = np.array([c, 1.0])
    scaled = bg.GaussianMixture(mixture.weights, mixture.means * units, mixture.covariances * units[:, None] * units)
    n_known = (~np.isnan(X[:, 0])).sum()
    assert scaled.log_likelihood(X * units) == pytest.approx(mixture.log_likelihood(X) - n_known * np.log(c), rel=1e-12)


def test_the_order_of_rows_and_columns_does_not_matter():
    rng = np.random.default_rng(5)
    mixture, X, sd = random_mixture(rng, 3, 4), rng.normal(size=(70, 4)), rng.random((70, 4))
    X[rng.random(X.shape) < 0.2] = np.nan
    rows, columns = rng.permutation(70), rng.permutation(4)
    there = mixture.log_joint(X, error_sd=sd)
    back = mixture.marginal(columns).log_joint(X[rows][:, columns], error_sd=sd[rows][:, columns])
    np.testing.assert_allclose(back, there[rows], rtol=1e-11)


def test_groups_hold_every_row_with_a_value_once():
    rng = np.random.default_rng(6)
    missing = rng.random((200, 3)) < 0.5
    patterns = Patterns.of(missing)
    assert sorted(patterns.order) == np.flatnonzero(~missing.all(axis=1)).tolist()
    for g, rows in enumerate(np.split(patterns.order, patterns.start[1:-1])):
        n = patterns.n_observed[g]
        assert not missing[np.ix_(rows, patterns.columns[g, :n])].any()
        assert missing[np.ix_(rows, patterns.columns[g, n:])].all()


@pytest.mark.parametrize("least", [1, 3, 1000])
def test_groups_have_so_many_rows_and_all_others_are_alone(least):
    rng = np.random.default_rng(8)
    missing, variances = rng.random((300, 3)) < 0.3, rng.integers(1, 3, size=(300, 3)).astype(float)
    patterns = Patterns.of(missing, variances, least)
    kinds = [(*row, *np.where(row, 0, s)) for row, s in zip(missing.tolist(), variances.tolist(), strict=True)]
    together = [patterns.order[slice(*ends)] for ends in pairwise(patterns.start)]
    assert {kinds[rows[0]] for rows in together} == {
        kind for kind in kinds if kinds.count(kind) >= least and not all(kind[:3])
    }
    for g, (rows, n, columns, errors) in enumerate(
        zip(together, patterns.n_observed, patterns.columns, patterns.errors, strict=True)
    ):
        assert len({kinds[row] for row in rows}) == 1
        np.testing.assert_array_equal(patterns.group(g)[1], errors)
        np.testing.assert_array_equal(np.diag(errors)[columns[:n]], variances[rows[0], columns[:n]])
    assert sorted(patterns.order) == np.flatnonzero(~missing.all(axis=1)).tolist()
    assert (np.diff(missing[patterns.order[patterns.start[-1] :]].sum(axis=1)) <= 0).all()


def test_variances_of_rows_that_are_alone_are_not_expanded():
    errors = np.random.default_rng(9).random((50, 4))
    patterns = Patterns.of(np.zeros((50, 4), bool), errors, 2)
    assert patterns.start.tolist() == [0]
    assert patterns.errors.shape == (0, 4, 4)
    assert patterns.row_errors is errors


def test_looking_at_groups_does_not_expand_the_variances_of_all():
    errors = np.random.default_rng(9).random((2000, 20))
    table = any_rows(np.zeros((2000, 20)), error_sd=np.sqrt(errors))
    tracemalloc.start()
    for _, columns, S in table.groups.groups():
        assert S.shape == (20, len(columns))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8 * 2000 * 20 * 20 / 2


@pytest.mark.parametrize("D", [*range(1, 13), 19, 40])
@pytest.mark.parametrize("kind", ["exact", "variances", "covariances", "shared"])
@pytest.mark.parametrize("diagonal", [False, True])
def test_rows_say_the_same_alone_as_in_groups(D, kind, diagonal):
    rng = np.random.default_rng(D)
    mixture, X, A = random_mixture(rng, 3, D), rng.normal(size=(70, D)), rng.normal(size=(70, D, D))
    X[rng.random(X.shape) < 0.2] = np.nan
    P = mixture.precisions_cholesky * np.eye(D) if diagonal else mixture.precisions_cholesky
    covariances = A @ np.swapaxes(A, 1, 2)
    errors = {"exact": None, "variances": A[:, 0] ** 2, "covariances": covariances, "shared": covariances[:1]}[kind]
    parameters = Parameters(np.log(mixture.weights), mixture.means, P, log_noise=-1.0)
    labels = np.where(rng.random(70) < 0.2, rng.integers(3, size=70), -1)
    given, noise = (X, rng.random(70), labels, np.zeros(D)), rng.normal(size=70) - D

    def answers(least):
        rows = Rows(*given, Patterns.of(np.isnan(X), errors, least), noise)
        *sums, statistics = expected_statistics(rows, parameters, diagonal)
        yield from (*sums, *statistics, log_prob(rows, parameters, diagonal), log_joint(rows, parameters, diagonal))

    for together, alone in zip(answers(1), answers(1000), strict=True):
        np.testing.assert_allclose(alone, together, rtol=1e-9, atol=1e-9 * np.abs(together).max())


@pytest.mark.parametrize("errors", [False, True])
def test_rows_alone_keep_their_digits_beside_a_thin_component(errors):
    """Even where it is a million times as thin in one direction as in the others."""
    rng = np.random.default_rng(10)
    axes = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    thin = (axes * [1.0, 1.0, 1.0, 1e-12]) @ axes.T
    mixture, X = bg.GaussianMixture([1.0], np.zeros((1, 4)), thin[None]), rng.normal(size=(40, 3)) @ axes[:, :3].T
    X[rng.random(X.shape) < 0.2] = np.nan
    table = any_rows(X, error_sd=0.1 * rng.random(X.shape)) if errors else any_rows(X)
    together, alone = (statistics_of(mixture, regrouped(table, least)) for least in (1, 1000))
    assert alone[0] == pytest.approx(together[0], rel=1e-7)
    for one, other in zip(alone[2], together[2], strict=True):
        close(one, other, 1e-7)


def test_threads_change_no_answer():
    rng = np.random.default_rng(7)
    mixture, X = random_mixture(rng, 4, 5), rng.normal(size=(20_000, 5))
    X[rng.random(X.shape) < 0.1] = np.nan
    value, _, statistics = statistics_of(mixture, any_rows(X))
    halves = [statistics_of(mixture, any_rows(part)) for part in (X[:10_000], X[10_000:])]
    assert value == pytest.approx(halves[0][0] + halves[1][0], rel=1e-12)
    for whole, one, other in zip(statistics, halves[0][2], halves[1][2], strict=True):
        np.testing.assert_allclose(whole, one + other, rtol=1e-9, atol=1e-8)
