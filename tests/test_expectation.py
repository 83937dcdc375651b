"""Laws of the kernel: it equals the direct computation, and its statistics are the gradient."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from oracles import direct_log_joint, direct_log_prob, random_mixture, reference
from scipy.special import logsumexp

import bayesgmm as bg
from bayesgmm import expectation as kernel, native


def parameters_of(mixture, center):
    P = mixture.precisions_cholesky
    log_scale = np.log(mixture.weights) + np.log(np.einsum("kii->ki", P)).sum(-1)
    return kernel.Parameters(log_scale - 0.5 * mixture.n_features * np.log(2 * np.pi), mixture.means - center, P.copy())


@pytest.mark.parametrize(("N", "D", "K"), [(1, 1, 1), (7, 1, 3), (300, 2, 2), (1001, 3, 4), (640, 6, 2), (500, 11, 5)])
@pytest.mark.parametrize("diagonal", [False, True])
def test_statistics_equal_the_direct_sums(N, D, K, diagonal):
    rng = np.random.default_rng(N + D)
    m = random_mixture(rng, K, D)
    if diagonal:
        m = bg.GaussianMixture(m.weights, m.means, m.covariances * np.eye(D))
    X, weight = rng.normal(size=(N, D)) * 3, rng.uniform(0, 2, size=N)
    center = X.mean(axis=0)
    value, map_log_responsibility, statistics = kernel.expected_statistics(
        kernel.Rows(X, weight, kernel.NO_LABELS, center), parameters_of(m, center), diagonal
    )
    L = direct_log_joint(m, X)
    R = weight[:, None] * np.exp(L - logsumexp(L, axis=1, keepdims=True))
    d = X[:, None] - m.means
    scatter = np.einsum("nk,nki,nkj->kij", R, d, d)
    assert value == pytest.approx(weight @ logsumexp(L, axis=1), rel=1e-12)
    assert map_log_responsibility == pytest.approx(
        weight @ (L.max(axis=1) - logsumexp(L, axis=1)), rel=1e-10, abs=1e-12
    )
    np.testing.assert_allclose(statistics.counts, R.sum(axis=0), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(statistics.first, np.einsum("nk,nki->ki", R, d), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(statistics.scatter, scatter * np.eye(D) if diagonal else scatter, rtol=1e-9, atol=1e-10)


def test_threads_and_chunks_change_no_answer():
    rng = np.random.default_rng(3)
    m, X = random_mixture(rng, 4, 5), rng.normal(size=(40_000, 5))
    center = np.zeros(5)
    rows = kernel.Rows(X, np.ones(1), kernel.NO_LABELS, center)
    p = parameters_of(m, center)
    assert kernel.parallel_pays(len(X), 4, 5, False)
    value, _, statistics = kernel.expected_statistics(rows, p)
    alone, sums = kernel.empty_statistics(4, 5), native.Sums()
    over, into = kernel.Pass(rows, p, False), native.Statistics(*map(native.address, alone))
    native.accumulate(over.compiled, over.mixture, 0, len(X), True, into, sums)
    assert value == pytest.approx(sums.log_likelihood, rel=1e-13)
    for shared, own in zip(statistics, alone, strict=True):
        np.testing.assert_allclose(shared, own, rtol=1e-10, atol=1e-9)


def test_gradient_is_the_expected_statistics():
    """Fisher's identity, against central differences of the log-likelihood."""
    rng = np.random.default_rng(1)
    m, X = random_mixture(rng, 3, 2), rng.normal(size=(200, 2)) * 2
    rows = kernel.Rows(X, np.ones(1), kernel.NO_LABELS, np.zeros(2))
    _, _, (counts, first, _) = kernel.expected_statistics(rows, parameters_of(m, 0.0))

    def log_likelihood(means=m.means, log_scale_shift=0.0):
        p = parameters_of(bg.GaussianMixture(m.weights, means, m.covariances), 0.0)
        p = p._replace(log_scale=p.log_scale + log_scale_shift)
        return kernel.log_prob(rows, p).sum()

    h = 1e-5
    for k in range(3):
        e = np.eye(3)[k] * h
        numeric = (log_likelihood(log_scale_shift=e) - log_likelihood(log_scale_shift=-e)) / (2 * h)
        assert counts[k] == pytest.approx(numeric, rel=1e-7)
        exact = np.linalg.solve(m.covariances[k], first[k])
        for j in range(2):
            shift = np.zeros((3, 2))
            shift[k, j] = h
            numeric = (log_likelihood(m.means + shift) - log_likelihood(m.means - shift)) / (2 * h)
            assert exact[j] == pytest.approx(numeric, rel=1e-6, abs=1e-6)


def test_known_labels_fix_the_responsibilities():
    rng = np.random.default_rng(5)
    m, X = random_mixture(rng, 3, 2), rng.normal(size=(60, 2))
    labels = rng.integers(3, size=60)
    labels[::2] = -1
    value, _, statistics = kernel.expected_statistics(
        kernel.Rows(X, np.ones(1), labels, np.zeros(2)), parameters_of(m, 0.0)
    )
    L = direct_log_joint(m, X)
    known = labels >= 0
    R = np.exp(L - logsumexp(L, axis=1, keepdims=True))
    R[known] = np.eye(3)[labels[known]]
    assert value == pytest.approx(logsumexp(L, axis=1)[~known].sum() + L[known, labels[known]].sum(), rel=1e-12)
    np.testing.assert_allclose(statistics.counts, R.sum(axis=0), rtol=1e-11)


@pytest.mark.parametrize("case", reference("log_density.json")["cases"], ids=lambda case: case["name"])
def test_log_density_equals_exact_arithmetic(case):
    m = bg.GaussianMixture(case["weights"], case["means"], case["covariances"])
    log_prob = m.log_prob(case["X"])
    tolerance = 1e-6 if "cond" in case["name"] else 1e-10
    np.testing.assert_allclose(log_prob, [row["logpdf"] for row in case["expected"]], rtol=tolerance)
    log_responsibilities = m.log_joint(case["X"]) - log_prob[:, None]
    expected = [row["log_responsibilities"] for row in case["expected"]]
    np.testing.assert_allclose(log_responsibilities, expected, rtol=tolerance, atol=1e-10)


def test_shifting_and_scaling_the_data_changes_no_density():
    rng = np.random.default_rng(7)
    m, X = random_mixture(rng, 3, 3), rng.normal(size=(50, 3))
    scale, shift = np.array([1e-6, 1.0, 1e6]), np.array([1e2, -1e8, 1e9])
    moved = bg.GaussianMixture(m.weights, m.means * scale + shift, m.covariances * scale[:, None] * scale)
    expected = direct_log_prob(m, X) - np.log(scale).sum()
    # the data themselves are rounded: 1e8 + x keeps eight digits of x
    np.testing.assert_allclose(moved.log_prob(X * scale + shift), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("x", [1e6, -1e150, 1e200])
def test_far_rows_have_finite_densities_and_responsibilities(x):
    m = random_mixture(np.random.default_rng(0), 3, 2)
    assert np.isfinite(m.log_prob([[x, 0.0]])).all()
    np.testing.assert_allclose(m.responsibilities([[x, 0.0]]).sum(axis=-1), 1.0)


def test_results_of_threads_are_in_the_order_of_the_items():
    assert kernel.in_threads(lambda i: i**2, range(100)) == [i**2 for i in range(100)]
    assert kernel.in_threads(lambda i: i**2, []) == []


def test_a_single_item_needs_no_thread():
    assert kernel.in_threads(lambda _: threading.current_thread(), [0]) == [threading.current_thread()]


@pytest.mark.parametrize("bad", [0, 7, 19])
def test_an_error_in_a_thread_is_the_callers(bad):
    def task(i):
        if i == bad:
            raise ZeroDivisionError(f"item {i}")
        return i

    with pytest.raises(ZeroDivisionError, match=f"item {bad}"):
        kernel.in_threads(task, range(20))
    assert kernel.in_threads(abs, [-1, -2]) == [1, 2]  # and the pool still works


def test_after_an_error_no_thread_takes_more():
    started = []

    def task(i):
        started.append(i)
        if i == 3:
            raise KeyboardInterrupt
        time.sleep(1e-3)

    with pytest.raises(KeyboardInterrupt):
        kernel.in_threads(task, range(10_000))
    time.sleep(0.05)
    n_started = len(started)
    time.sleep(0.05)
    assert len(started) == n_started < 5_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child_computes_what_its_parent_does():
    rng = np.random.default_rng(0)
    m, X = random_mixture(rng, 4, 5), rng.normal(size=(40_000, 5))
    expected = m.log_prob(X)
    pool = kernel._pool
    assert pool is not None, "the rows are too few to be shared between threads"
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(30)  # whoever waits for the parent's threads, which the child does not have, waits for ever
        forgotten = kernel._pool is None
        os.write(write, m.log_prob(X)[:1000].tobytes())
        os._exit(0 if forgotten and kernel._pool not in (None, pool) else 1)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"the child ended with {os.waitstatus_to_exitcode(status)}"
    assert kernel._pool is pool
    np.testing.assert_array_equal(np.frombuffer(answer), expected[:1000])


def test_a_thread_that_works_alone_does_all_of_it():
    def workers():
        return {*kernel.in_threads(lambda _: threading.current_thread(), range(50))}

    with kernel.alone():
        with kernel.alone():
            assert workers() == {threading.current_thread()}
        assert workers() == {threading.current_thread()}
        assert kernel.in_threads(lambda i: i**2, range(100)) == [i**2 for i in range(100)]
