"""What all steps of one sampling have in common, where its draws go, and what comes of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from bayesgmm import __version__
from bayesgmm.bayes.chains import Chains
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.laplace import Mode
from bayesgmm.bayes.mode_weights import ModeWeights
from bayesgmm.bayes.modes import Searched, better_fit
from bayesgmm.bayes.posterior import Posterior, Sampling, TableSource, posterior
from bayesgmm.bayes.relabel import relabelling
from bayesgmm.bayes.tree import tree_of, write_tree
from bayesgmm.checkpoints import fingerprint
from bayesgmm.em.result import EMFit
from bayesgmm.errors import InputError
from bayesgmm.observations import Observations


class Size(NamedTuple):
    """How much to draw: draws to keep and to tune with, of each chain, and chains."""

    draws: int
    tune: int
    chains: int

    @property
    def total(self) -> int:
        """Draws of all chains, tuning included."""
        return self.chains * (self.draws + self.tune)


@dataclass(frozen=True, eq=False)
class Run:
    """What all steps of one sampling have in common."""

    density: Density
    fit: EMFit
    searched: Searched
    modes: list[Mode]  # all that are worth a chain, the highest first
    size: Size
    method: str
    sampler: str
    seed: int
    started: float
    sample: Observations | None = None  # of a table in parts, of which the density knows but the prior
    source: TableSource | None = None

    @property
    def starts(self) -> list[Mode]:
        """The modes that chains start from."""
        return self.modes[: self.size.chains]

    def posterior(self, chains: Chains) -> Posterior:
        """The draws, relabelled as the fit, and what they are of."""
        method = "hungarian" if self.density.priors.exchangeable else "none"
        relabelled = relabelling(self.density.unpack(chains.thetas), self.fit.mixture, method=method)
        seconds = time.perf_counter() - self.started
        return Posterior(
            draws=relabelled.mixture,
            table=self.density.table if self.source is None else None,
            features=self.fit.features,
            em=self.fit.mixture,
            fit=self.fit,
            covariance_model=self.fit.covariance_model,
            priors=self.density.priors,
            labels=relabelled.labels,
            sampling=Sampling(self.method, self.sampler, self.seed, self.size.tune, seconds, chains.complete),
            statistics=chains.statistics,
            sample=self.sample,
            source=self.source,
        )

    def tree(self, drawn: Posterior, weights: ModeWeights | None, *, log_likelihood: bool = True) -> xr.DataTree:
        """The posterior as it is returned."""
        attributes = dict(self._attributes(drawn, weights))
        return tree_of(drawn, attributes, log_likelihood=log_likelihood)

    def _attributes(self, drawn: Posterior, weights: ModeWeights | None) -> Iterator[tuple[str, Any]]:
        """What is to be told of the draws, by name."""
        yield "priors", str(self.density.priors)
        yield "prior_values", self.density.priors.to_json()
        yield "fingerprint", _fingerprint(self.density, self.source)
        sampling = drawn.sampling
        yield from {"method": self.method, "sampler": self.sampler, "seed": self.seed, "tune": self.size.tune}.items()
        yield "sampling_seconds", sampling.seconds
        assert drawn.labels is not None
        yield from drawn.labels.attributes.items()
        yield "bayesgmm_version", __version__
        if self.sampler != "gibbs":
            yield f"{self.sampler}_version", version(self.sampler)
        if len(self.starts) > 1:
            copies = math.lgamma(self.fit.n_components + 1) if self.density.priors.exchangeable else 0.0
            axes = self.density.coordinates.laplace_excess + self.density.coordinates.log_copies
            constant = self.density.log_constant + copies + axes
            each = (f"{mode.log_integral + constant:.1f}" for mode in self.starts)
            yield "maxima", f"log evidence by Laplace of the maxima near which chains start: {', '.join(each)}"
        if self.searched.text:
            yield "search", self.searched.text
        if better := better_fit(self.fit, self.searched):
            yield "better_fit", better
        if not sampling.complete:
            yield "partial", interrupted(self.size, drawn)
        if weights is not None:
            yield "modes", weights.text
        if drawn.verdict is not None:
            yield from drawn.verdict.attributes.items()


def interrupted(size: Size, drawn: Posterior) -> str:
    """How far an interrupted run has come."""
    chains, draws = drawn.draws.batch_shape
    if (chains, draws) == (size.chains, size.draws):
        return "interrupted before the chains had mixed"
    return f"interrupted with {draws} of {size.draws} draws in {chains} of {size.chains} chains"


def _fingerprint(density: Density, source: TableSource | None) -> str:
    """What tells posteriors of another table, model or prior apart."""
    of_source = () if source is None else (source.to_json(),)
    return fingerprint(density.table, density.model.name, density.priors.to_json(), *of_source)


class Earlier(NamedTuple):
    """What an earlier run has left in a file."""

    tree: xr.DataTree
    chains: Chains
    complete: bool


def earlier_draws(file: Path, density: Density, source: TableSource | None = None) -> Earlier:
    """The posterior in a file, or an `InputError` where it is not one of the same table, model and priors."""
    try:
        with xr.open_datatree(file, engine="h5netcdf") as stored:
            tree = stored.load()
        drawn, fingerprint_of_file = posterior(tree), tree.attrs["fingerprint"]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{file} is there already and holds no posterior; give another out=, or remove it") from error
    if fingerprint_of_file != _fingerprint(density, source):
        raise InputError(
            f"{file} holds the posterior of another table, model or prior; give another out=, or remove it"
        )
    chains = Chains(density.pack(drawn.draws), dict(drawn.statistics))
    return Earlier(tree, chains, drawn.sampling.complete)


class Outlet(NamedTuple):
    """Where draws go while there are more to come."""

    run: Run
    file: Path | None
    progress: Callable[[int, int], None]

    def write(self, chains: Chains) -> None:
        """Write what there is to the file, if there is one."""
        if self.file is not None:
            write_tree(self.run.tree(self.run.posterior(chains), None, log_likelihood=False), self.file)
