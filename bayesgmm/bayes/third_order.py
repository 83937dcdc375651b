"""The log posterior of many rows near its mode: to second order from all rows, the rest from a random sample of them.

Value, slope and curvature at the mode are known from all rows. What the log-likelihood of a row differs from its own
parabola there is so small that a sample tells the sum over all rows, and its spread over the rows how precisely.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from bayesgmm.bayes.density import Density
from bayesgmm.bayes.laplace import Around, Mode, around_rows
from bayesgmm.em.information import request_of
from bayesgmm.expectation import Rows, in_threads, log_prob
from bayesgmm.observations import Observations
from bayesgmm.passes import InMemory

PRECISE = 0.02  # nats: standard error of a log posterior that is not to be noticed
_STEP = 0.1  # of the way to a point, by which rows' slopes and curvatures are taken: third order is off by a hundredth
_FEWEST = 100  # rows of the sample that a component must have, lest a rare one's are not among them


def near_mode(
    prior: Density, at_mode: Around, mode: Mode, sample: Observations, n_rows: int, steps: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """The log posterior (2 m,) at m steps (m, n) from the mode and m backwards, and its gradients (2 m, n).

    Parameters
    ----------
    prior : Density
        Log prior.
    at_mode : Around
        What the log posterior of all rows is at the mode.
    mode : Mode
    sample : Observations
        Drawn at random without replacement; fewer than all rows.
    n_rows : int
        Number of all rows N.
    steps : (m, n)

    Returns
    -------
    (values, gradients) or None
        None where a component has fewer than a hundred rows of the sample, or a value's standard error is more than
        0.02 nats. That is N sqrt(1/M - 1/N) times the standard deviation, over the M rows of the sample, of what the
        log-likelihood of a row differs at that point from its parabola about the mode.
    """
    M, scale = sample.n_observations, n_rows / sample.n_observations
    of_sample = replace(prior, table=replace(sample, sample_weight=np.array([scale])))
    rows = of_sample.table.rows(prior.center)
    counts = prior.unpack(mode.origin).responsibilities(sample.values).sum(axis=0)
    if counts.min() < _FEWEST:
        return None
    allowed = PRECISE / (n_rows * math.sqrt(1 / M - 1 / n_rows))
    middle = _log_likelihoods(prior, rows, mode.origin)
    for step in steps:
        near, far = ([_log_likelihoods(prior, rows, mode.origin + t * step) for t in (s, -s)] for s in (_STEP, 1.0))
        slope, bend = (near[0] - near[1]) / (2 * _STEP), (near[0] - 2 * middle + near[1]) / _STEP**2
        remainders = far[0] - middle - slope - bend / 2, far[1] - middle + slope - bend / 2
        if max(one.std() for one in remainders) > allowed:
            return None
    step_of_quotients = np.full(prior.n_dim, np.nan)  # both Hessians are exact
    at_mode_of_sample = around_rows(prior, InMemory(rows), mode.origin)
    value = at_mode.value - at_mode_of_sample.value
    slope = at_mode.gradient - at_mode_of_sample.gradient
    bend = at_mode.hessian(step_of_quotients) - at_mode_of_sample.hessian(step_of_quotients)
    both = np.concatenate([steps, -steps])
    _ = of_sample.handle  # made once, before threads ask for it
    values, gradients = zip(*in_threads(lambda step: of_sample(mode.origin + step), list(both)), strict=True)
    by_step = both @ bend
    parabola = value + both @ slope + (both * by_step).sum(axis=1) / 2
    return np.array(values) + parabola, np.array(gradients) + slope + by_step


def _log_likelihoods(prior: Density, rows: Rows, theta: np.ndarray) -> np.ndarray:
    return log_prob(rows, request_of(prior.unpack(theta), prior.center).parameters, prior.model.diagonal)
