"""Giving the components of every posterior draw consistent numbers: those of the EM fit.

Where the prior treats all components alike the posterior does not know their numbers. What depends on them (means and
intervals of one component's parameters) makes sense only after relabelling; what does not (log-likelihood, density of
a row, co-clustering) is untouched by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from bayesgmm.alignment import cheapest_order, divergence, margin
from bayesgmm.errors import InputError
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import made_up_names

METHODS = ("hungarian", "ecr", "stephens")
VARIABLES = ("weights", "means", "covariances")
_LAYOUT = ("chain", "draw", ..., "component", "feature", "feature_bis")
_BLOCK_BYTES = 32e6  # of responsibilities held at a time; the work on them takes about three times as much


class Relabelling(NamedTuple):
    """Relabelled draws and how the labels behaved."""

    mixture: GaussianMixture
    method: str
    order: np.ndarray  # (..., K): component k was order[..., k]
    margin: np.ndarray  # (...): by how much the second-best order costs more, in the method's unit
    switch_rate: float  # share of draws whose components have other numbers than in the chain's first draw
    ambiguous: float  # share of draws in which some component was nearest to two of the target's

    @property
    def attributes(self) -> dict[str, str | float]:
        """What a posterior's tree says of its labels."""
        return {
            "relabelling": self.method,
            "switch_rate": self.switch_rate,
            "ambiguous_rate": self.ambiguous,
            "margin_mean": float(self.margin.mean()),
            "margin_min": float(self.margin.min()),
        }


class Pass(NamedTuple):
    """One pass of Stephens' algorithm."""

    order: np.ndarray  # (..., K): the orders that the pass averaged under
    cost: np.ndarray  # (..., K, K): -sum_i r_ij log q_ik, nats
    total: float  # of the costs of these orders, over the draws


def relabel(tree: xr.DataTree, method: str = "hungarian", *, target: str | GaussianMixture = "em") -> xr.DataTree:
    """The same posterior with the components of every draw numbered consistently.

    Parameters
    ----------
    tree : DataTree
        As from `sample_posterior`: groups ``posterior`` and ``observed_data``, and ``em`` if it is the target.
    method : {"hungarian", "ecr", "stephens"}
        "hungarian" matches each draw's components to the target's by the least total symmetric Kullback-Leibler
        divergence of the Gaussians. "ecr" makes the rows' most probable components agree with the target's for as many
        rows as possible (Papastamoulis & Iliopoulos 2010). "stephens" makes the draws' responsibilities agree with
        each other, with the least Kullback-Leibler divergence from their mean (Stephens 2000, algorithm 2); it starts
        from "hungarian".
    target : {"em", "map"} or GaussianMixture
        Whose numbers to take: the EM fit's, those of the draw of highest log posterior, or a given mixture's.

    Returns
    -------
    DataTree
        Every variable of ``posterior`` with the dimension ``component`` is reordered; all else is as it was. The
        attributes tell of the given draws: ``relabelling`` (the method), ``switch_rate`` (share of draws whose
        components have other numbers than in the chain's first draw), ``ambiguous_rate`` (share of draws in which a
        component is nearest to two of the target's), ``margin_mean`` and ``margin_min`` (by how much the second-best
        permutation of a draw is worse than the best, over draws: nats of divergence for "hungarian", rows for "ecr",
        nats summed over rows for "stephens"; infinite for K = 1).

    Raises
    ------
    InputError
        If the method or target is unknown, the tree lacks what it needs, or its prior tells the components apart.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> bg.relabel(tree, "stephens").attrs["switch_rate"]
    0.0
    """
    posterior_of(tree, "relabel")
    if not {"chain", "draw"} <= set(tree["posterior"].dims):
        raise InputError("relabel needs draws with the dimensions chain and draw, not stacked, nor of a single chain")
    if method not in METHODS:
        raise InputError(f"unknown relabelling method {method!r}; use one of {', '.join(METHODS)}")
    if tree.attrs.get("relabelling") == "none":
        raise InputError("the prior of this posterior tells the components apart; their numbers must stay as drawn")
    posterior = tree["posterior"].to_dataset()
    draws = mixture_of(posterior)
    X = rows_of(tree)
    found = relabelling(draws, _target(tree, draws, X, target), X, method)
    order = xr.DataArray(found.order, dims=("chain", "draw", "component"))
    renumbered = {
        name: variable.isel(component=order).transpose(*variable.dims).variable
        for name, variable in posterior.drop_vars("component", errors="ignore").data_vars.items()
        if {"chain", "draw", "component"} <= set(variable.dims)
    }
    groups = {path: group for path, group in tree.to_dict().items() if path != "/posterior"}
    new = xr.DataTree.from_dict({**groups, "/posterior": posterior.assign(renumbered)}, name=tree.name)
    new.attrs = {**tree.attrs, **found.attributes}
    return new


def relabelling(
    draws: GaussianMixture, target: GaussianMixture, X: np.ndarray | None = None, method: str = "hungarian"
) -> Relabelling:
    """Permute each draw so that its components are the target's; "ecr" and "stephens" need the rows X (N, D).

    With the method "none" the draws stay as they are: what "hungarian" would do is only told.
    """
    if target.means.shape != draws.means.shape[-2:]:
        raise InputError(f"the target has means of shape {target.means.shape}, the draws {draws.means.shape[-2:]}")
    if method in ("ecr", "stephens") and X is None:
        raise InputError(f"{method!r} needs the rows, but the tree has no group observed_data; use 'hungarian'")
    numbers = np.arange(draws.n_components)
    cost = divergence(draws, target)
    ambiguous = (np.sort(cost.argmin(axis=-2), axis=-1) != numbers).any(axis=-1).mean()
    if X is not None and method == "ecr":
        cost = _disagreement(draws, X, target.predict(X))
    order = cheapest_order(cost)
    if X is not None and method == "stephens":
        *_, (order, cost, _) = stephens(draws, X, order)
    distance = margin(cost, order)
    switched = (order != order[..., :1, :]).any(axis=-1).mean()
    if method == "none":
        order = np.broadcast_to(numbers, order.shape)
    relabelled = draws.permute(order) if (order != numbers).any() else draws
    return Relabelling(relabelled, method, order, distance, float(switched), float(ambiguous))


def stephens(draws: GaussianMixture, X: np.ndarray, order: np.ndarray) -> Iterator[Pass]:
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


def _disagreement(draws: GaussianMixture, X: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Minus the number of rows (..., K, K) that are most probably of component j and labelled k."""
    K = draws.n_components
    pivot = np.eye(K)[labels]
    counts = sum(
        np.tensordot(np.eye(K)[R.argmax(axis=2)], pivot[rows], axes=(1, 0)) for rows, R in blocks_of_rows(draws, X)
    )
    return -np.reshape(counts, (*draws.batch_shape, K, K))


def blocks_of_rows(draws: GaussianMixture, X: np.ndarray) -> Iterable[tuple[slice, np.ndarray]]:
    """Blocks of rows and their responsibilities (S, n, K) in all S draws; computed anew each time if many."""
    K, N = draws.n_components, len(X)
    size = max(int(_BLOCK_BYTES / (8 * draws.weights.size)), 1)

    def block(start: int) -> tuple[slice, np.ndarray]:
        rows = slice(start, start + size)
        return rows, draws.responsibilities(X[rows]).reshape(-1, min(size, N - start), K)

    return [block(0)] if size >= N else (block(start) for start in range(0, N, size))


def _target(tree: xr.DataTree, draws: GaussianMixture, X: np.ndarray | None, target: Any) -> GaussianMixture:
    """The mixture whose numbers the draws take."""
    if isinstance(target, GaussianMixture):
        return target
    if not isinstance(target, str) or target not in ("em", "map"):
        raise InputError(f"target is 'em', 'map' or a GaussianMixture, not {target!r}")
    if target == "em":
        if "em" not in tree.children:
            raise InputError("the tree has no group em, the fit's; give target='map' or a GaussianMixture")
        return mixture_of(tree["em"])
    if "sample_stats" in tree.children and "lp" in tree["sample_stats"]:
        height = tree["sample_stats"].to_dataset()["lp"].values
    elif X is not None:
        height = draws.log_likelihood(X)
    else:
        raise InputError("which draw is the most probable is not known: the tree has neither lp nor observed_data")
    best = np.unravel_index(height.argmax(), height.shape)
    return GaussianMixture(draws.weights[best], draws.means[best], draws.covariances[best])


def rows_of(tree: xr.DataTree) -> np.ndarray | None:
    """The rows (N, D) that a posterior is of, where its tree keeps them."""
    return tree["observed_data"].to_dataset()["observations"].values if "observed_data" in tree.children else None


def posterior_of(tree: xr.DataTree, what: str) -> xr.Dataset:
    """The draws of a mixture's parameters, (chain, draw, component, ...), also of one chain or stacked.

    Raises
    ------
    InputError
        If the tree has none; ``what`` needs them.
    """
    if not isinstance(tree, xr.DataTree) or "posterior" not in tree.children:
        raise InputError(f"{what} needs a posterior: the DataTree that sample_posterior returned")
    posterior = tree["posterior"].to_dataset()
    if missing := [name for name in VARIABLES if name not in posterior]:
        raise InputError(f"the posterior has no {' and no '.join(missing)}: it is not one of a mixture")
    posterior = posterior[list(VARIABLES)]
    indexes = {name: index for name, index in posterior.indexes.items() if name in posterior.dims}
    posterior = posterior.unstack([name for name, index in indexes.items() if set(index.names) == {"chain", "draw"}])
    if "draw" not in posterior.dims:
        raise InputError(
            f"the draws have the dimensions {', '.join(map(str, posterior.dims))}; {what} needs chain and draw"
        )
    if "chain" not in posterior.dims:
        posterior = posterior.expand_dims("chain")
    return posterior.transpose(*_LAYOUT)


def of_draws(group: xr.Dataset, posterior: xr.Dataset) -> xr.Dataset:
    """What a group of a tree says of the draws of a posterior, perhaps some of the tree's; nothing if not of all."""
    if "chain" not in group.dims and "draw" in group.dims:
        group = group.expand_dims("chain")
    for dim in ("chain", "draw"):
        if dim in posterior.coords and dim in group.coords and dim in group.dims:
            if not np.isin(posterior[dim], group[dim]).all():
                return xr.Dataset()
            group = group.sel({dim: posterior[dim].values})
        if group.sizes.get(dim) != posterior.sizes[dim]:
            return xr.Dataset()
    return group.transpose("chain", "draw", ...)


def mixture_of(group: Any) -> GaussianMixture:
    """The mixture, or batch of them, whose parameters a group of a tree holds, in whatever order of dimensions."""
    ordered = {name: group[name].transpose(*_LAYOUT, missing_dims="ignore") for name in VARIABLES}
    names = tuple(map(str, group["feature"].values)) if "feature" in group.coords else ()
    named = names and names != made_up_names(len(names))
    return GaussianMixture(**{name: a.values for name, a in ordered.items()}, features=names if named else None)
