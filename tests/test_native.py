"""The compiled core: its structs are what Python thinks, its levels agree, and its errors are Python's."""

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest
from oracles import random_mixture

import bayesgmm as bg
from bayesgmm import native
from bayesgmm.clusters.rows_under_draws import rows_under_draws
from bayesgmm.expectation import Parameters, Rows, expected_statistics
from bayesgmm.patterns import Patterns


@pytest.mark.parametrize("struct", native.STRUCTS, ids=lambda struct: struct.__name__)
def test_structs_have_the_sizes_that_the_core_gives_them(struct):
    assert native.size_of(struct) == ctypes.sizeof(struct)


@pytest.mark.parametrize("D", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 21])
@pytest.mark.parametrize("covariance", ["full", "diag"])
@pytest.mark.usefixtures("level")
def test_every_level_gives_the_same_answers(D, covariance):
    rng = np.random.default_rng(D)
    m, X, weight = random_mixture(rng, 3, D), rng.normal(size=(333, D)), rng.uniform(size=333)
    labels = np.where(rng.uniform(size=333) < 0.1, 1, -1)
    diagonal = covariance == "diag"
    P = m.precisions_cholesky * np.eye(D) if diagonal else m.precisions_cholesky
    holes, errors = rng.random(X.shape) < 0.2, np.array([np.diag(rng.random(D)) for _ in X])
    alone = [Patterns.of(holes, S, 999) for S in (None, np.diagonal(errors, axis1=1, axis2=2), errors[:1])]
    some_patterns = None, Patterns.of(holes), Patterns.of(holes, errors), Patterns.of(holes, errors[:1]), *alone
    batch = bg.GaussianMixture(*(np.stack([part, part, part]) for part in (m.weights, m.means, m.covariances)))
    parameters = Parameters(np.log(m.weights), m.means, P)

    def answers():
        for patterns in some_patterns:
            rows = Rows(X if patterns is None else np.where(holes, np.nan, X), weight, labels, np.zeros(D), patterns)
            *sums, statistics = expected_statistics(rows, parameters, diagonal)
            yield from (*sums, *statistics)
        yield m.log_prob(X)
        yield m.log_joint(X)
        yield from rows_under_draws(batch, X).block()[:3]
        yield from rows_under_draws(batch, np.where(holes, np.nan, X), error_covariance=errors).block()[:3]

    own = list(answers())
    native.use_level(native.levels()[-1])
    for one, other in zip(own, answers(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("name", native.levels())
def test_the_environment_picks_the_level(name):
    code = "from bayesgmm import native; print(native.level())"
    assert run(code, BAYESGMM_LEVEL=name).stdout.strip() == name


def test_a_level_that_the_processor_lacks_is_an_error():
    answer = run("import bayesgmm.native", BAYESGMM_LEVEL="v9")
    assert answer.returncode
    assert f"this processor has the levels {', '.join(native.levels())}, not 'v9'" in answer.stderr


def test_arrays_that_the_core_cannot_read_are_refused():
    for array in (np.zeros((4, 4))[:, ::2], np.zeros((4, 4)).T[1:], np.zeros(3, np.float32)):
        with pytest.raises(TypeError, match="C-contiguous array of float64"):
            native.address(array)


def test_more_memory_than_there_is_is_an_error_of_python():
    with pytest.raises(MemoryError, match="log_prob"):
        native.log_prob(native.Rows(), native.Mixture(K=2**50, D=1), 0, 0, 0)
