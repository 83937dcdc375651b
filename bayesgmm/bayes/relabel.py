"""Giving the components of every posterior draw consistent labels: those of the EM fit.

Where the prior treats all components alike the posterior does not know their labels. What depends on them (means and
intervals of one component's parameters) makes sense only after relabelling; what does not (log-likelihood, density of
a row, co-clustering) is untouched by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from bayesgmm.alignment import cheapest_order, divergence, margin
from bayesgmm.bayes.posterior import Labels, Posterior, posterior as as_posterior
from bayesgmm.errors import InputError
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import any_rows

METHODS = ("hungarian", "ecr", "stephens")
_BLOCK_BYTES = 32e6  # of responsibilities held at a time; the work on them takes about three times as much


class Relabelling(NamedTuple):
    """Relabelled draws and how the labels behaved."""

    mixture: GaussianMixture
    labels: Labels
    order: np.ndarray  # (..., K): component k was order[..., k]
    margin: np.ndarray  # (...): by how much the second-best order costs more, in the method's unit


class Pass(NamedTuple):
    """One pass of Stephens' algorithm."""

    order: np.ndarray  # (..., K): the orders that the pass averaged under
    cost: np.ndarray  # (..., K, K): -sum_i r_ij log q_ik, nats
    total: float  # of the costs of these orders, over the draws


def relabel(posterior: Any, method: str = "hungarian", *, target: str | GaussianMixture = "em") -> Any:
    """The same posterior with the components of every draw labelled consistently.

    Parameters
    ----------
    posterior : DataTree or Posterior
        From `sample_posterior`.
    method : {"hungarian", "ecr", "stephens"}
        "hungarian" matches each draw's components to the target's by the least total symmetric Kullback-Leibler
        divergence of the Gaussians. "ecr" makes the rows' most probable components agree with the target's for as many
        rows as possible (Papastamoulis & Iliopoulos 2010). "stephens" makes the draws' responsibilities agree with
        each other, with the least Kullback-Leibler divergence from their mean (Stephens 2000, algorithm 2); it starts
        from "hungarian".
    target : {"em", "map"} or GaussianMixture
        Whose labels to take: the EM fit's, those of the draw of highest log posterior, or a given mixture's.

    Returns
    -------
    DataTree or Posterior
        As given. Of a tree, every variable of ``posterior`` with the dimension ``component`` is reordered; all else is
        as it was. Its attributes describe the draws before relabelling: ``relabelling`` (the method), ``switch_rate``
        (share of draws whose components had other labels than in the chain's first draw), ``ambiguous_rate`` (share of
        draws in which a component was nearest to two of the target's), ``margin_mean`` and ``margin_min`` (by how much
        the second-best labelling of a draw is worse than the best, over the draws: nats of divergence for "hungarian",
        rows for "ecr", nats summed over rows for "stephens"; infinite for K = 1). A `Posterior` has them as ``labels``.

    Raises
    ------
    InputError
        If the method or target is unknown, the posterior lacks what it needs, or its prior tells the components apart.

    References
    ----------
    Papastamoulis & Iliopoulos (2010), Journal of Computational and Graphical Statistics 19, 313-331.
    doi:10.1198/jcgs.2010.09008

    Stephens (2000), Journal of the Royal Statistical Society B 62, 795-809. doi:10.1111/1467-9868.00265

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> bg.relabel(tree, "stephens").attrs["switch_rate"]
    0.0
    """
    if method not in METHODS:
        raise InputError(f"unknown relabelling method {method!r}; use one of {', '.join(METHODS)}")
    drawn = as_posterior(posterior)
    if drawn is not posterior and not {"chain", "draw"} <= set(posterior["posterior"].dims):
        raise InputError("relabel needs draws with the dimensions chain and draw, not stacked, nor of a single chain")
    if drawn.labels is not None and drawn.labels.method == "none":
        raise InputError("the prior of this posterior tells the components apart; their labels must stay as drawn")
    relabelled = relabelling(drawn.draws, _target(drawn, target), drawn.table, method)
    if drawn is posterior:
        return drawn.with_draws(relabelled.mixture, relabelled.labels)
    return _reordered(posterior, relabelled)


def _reordered(tree: Any, relabelled: Relabelling) -> Any:
    """The tree with every variable of its draws that has components in the new order."""
    dims = ("chain", "draw", "component")
    posterior = tree["posterior"].to_dataset()
    order = posterior["weights"].transpose(*dims).drop_vars("component", errors="ignore").copy(data=relabelled.order)
    variables = {
        name: variable.isel(component=order).transpose(*variable.dims).variable
        for name, variable in posterior.drop_vars("component", errors="ignore").data_vars.items()
        if set(dims) <= set(variable.dims)
    }
    groups = {path: group for path, group in tree.to_dict().items() if path != "/posterior"}
    new = type(tree).from_dict({**groups, "/posterior": posterior.assign(variables)}, name=tree.name)
    new.attrs = {**tree.attrs, **relabelled.labels.attributes}
    return new


def relabelling(
    draws: GaussianMixture, target: GaussianMixture, X: Any = None, method: str = "hungarian"
) -> Relabelling:
    """Permute each draw so that its components are the target's; "ecr" and "stephens" need the table X (N, D).

    With the method "none" the draws stay as they are; the labels are judged as "hungarian" would do.
    """
    if target.means.shape != draws.means.shape[-2:]:
        raise InputError(f"the target has means of shape {target.means.shape}, the draws {draws.means.shape[-2:]}")
    if method in ("ecr", "stephens") and X is None:
        raise InputError(f"{method!r} needs the rows, but the tree has no group observed_data; use 'hungarian'")
    as_drawn = np.arange(draws.n_components)
    cost = divergence(draws, target)
    ambiguous = (np.sort(cost.argmin(axis=-2), axis=-1) != as_drawn).any(axis=-1).mean()
    if X is not None and method == "ecr":
        cost = _disagreement(draws, X, target.predict(X))
    order = cheapest_order(cost)
    if X is not None and method == "stephens":
        *_, (order, cost, _) = stephens(draws, X, order)
    distance = margin(cost, order)
    switched = (order != order[..., :1, :]).any(axis=-1).mean()
    if method == "none":
        order = np.broadcast_to(as_drawn, order.shape)
    relabelled = draws.permute(order) if (order != as_drawn).any() else draws
    labels = Labels(method, float(switched), float(ambiguous), float(distance.mean()), float(distance.min()))
    return Relabelling(relabelled, labels, order, distance)


def stephens(draws: GaussianMixture, X: Any, order: np.ndarray) -> Iterator[Pass]:
    """The passes of Stephens' algorithm 2 (2000) from given orders (..., K), until no order changes.

    With r the responsibilities of a draw and q their mean over the relabelled draws, each draw takes the order k -> j
    of least sum_ik r_ij log(r_ij / q_ik), of which only the part with q depends on the order. Rows are independent
    given the orders, so one pass over blocks of rows gives both the means and the costs; the total never rises.
    """
    K, n_draws = draws.n_components, int(np.prod(draws.batch_shape))
    blocks = blocks_of_rows(draws, X)
    while True:
        chosen = np.eye(K)[order.reshape(n_draws, K)]  # (S, K, K): 1 where component k is to be the old j
        flat = np.zeros((n_draws, K, K))
        for _, R in blocks if isinstance(blocks, list) else blocks_of_rows(draws, X):
            q = np.tensordot(R, chosen, axes=([0, 2], [0, 2])) / n_draws  # (n, K)
            flat -= np.tensordot(R, np.log(np.maximum(q, 1e-300)), axes=(1, 0))
        cost = flat.reshape(*order.shape, K)
        total = _total(cost, order)
        yield Pass(order, cost, total)
        better = cheapest_order(cost)
        if not _total(cost, better) < total - 1e-10 * abs(total):  # equal orders could alternate for ever
            return
        order = better


def _total(cost: np.ndarray, order: np.ndarray) -> float:
    return float(np.take_along_axis(cost, order[..., None, :], axis=-2).sum())


def _disagreement(draws: GaussianMixture, X: Any, labels: np.ndarray) -> np.ndarray:
    """Minus the number of rows (..., K, K) that are most probably of component j and labelled k."""
    K = draws.n_components
    of_label = np.eye(K + 1)[:, :K]  # noise, labelled -1, agrees with none
    pivot = of_label[labels]

    def of_draws(R: np.ndarray) -> np.ndarray:
        return of_label[np.where(R.max(axis=2) >= 1 - R.sum(axis=2), R.argmax(axis=2), -1)]

    counts = sum(np.tensordot(of_draws(R), pivot[rows], axes=(1, 0)) for rows, R in blocks_of_rows(draws, X))
    return -np.reshape(counts, (*draws.batch_shape, K, K))


def blocks_of_rows(draws: GaussianMixture, X: Any) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Positions (n,) of rows, by blocks, and their responsibilities (S, n, K) in all S draws; of all that have a value.

    They are computed anew each time if many.
    """
    table, K = any_rows(X), draws.n_components
    filled = np.delete(np.arange(table.n_observations), table.empty)
    size = max(int(_BLOCK_BYTES / (8 * draws.weights.size)), 1)

    def block(start: int) -> tuple[np.ndarray, np.ndarray]:
        rows = filled[start : start + size]
        return rows, draws.responsibilities(table.take(rows)).reshape(-1, len(rows), K)

    return [block(0)] if size >= len(filled) else (block(start) for start in range(0, len(filled), size))


def _target(drawn: Posterior, target: str | GaussianMixture) -> GaussianMixture:
    """The mixture whose labels the draws take."""
    if isinstance(target, GaussianMixture):
        return target
    if target not in ("em", "map"):
        raise InputError(f"target is 'em', 'map' or a GaussianMixture, not {target!r}")
    if target == "em":
        if drawn.em is None:
            raise InputError("the posterior has no EM fit (group em); give target='map' or a GaussianMixture")
        return drawn.em
    if "lp" in drawn.statistics:
        height = drawn.statistics["lp"]
    elif drawn.table is not None:
        height = drawn.draws.log_likelihood(drawn.table)
    else:
        raise InputError("which draw is the most probable is not known: there is neither lp nor observed_data")
    return drawn.draws[np.unravel_index(height.argmax(), height.shape)]
