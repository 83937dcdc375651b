"""The chains of a posterior by each of the samplers: nutpie, PyMC's own, and Gibbs sampling of the assignments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from typing import NamedTuple

import numpy as np

from bayesgmm.bayes.chains import Chains
from bayesgmm.bayes.diagnosis import mixed
from bayesgmm.bayes.gibbs import gibbs_draws
from bayesgmm.bayes.laplace import Mode
from bayesgmm.bayes.nuts import nutpie_draws, pymc_draws
from bayesgmm.bayes.posterior import posterior
from bayesgmm.bayes.run import Earlier, Outlet, Run


def by_pymc(run: Run, _outlet: Outlet, _earlier: Earlier | None) -> Chains:
    """All chains by PyMC's own sampler."""
    from bayesgmm.bayes.model import build_model  # PyMC takes seconds to import

    model = build_model(run.density.table, run.fit, run.density.priors)
    draws, tune, chains = run.size
    sampled, statistics = pymc_draws(
        model, run.density, run.modes[0], draws=draws, tune=tune, chains=chains, seed=run.seed
    )
    return Chains(run.density.pack(posterior(sampled).draws), statistics)


class _Job(NamedTuple):
    """Chains to draw from one mode's normal approximation, and what there is of them already."""

    mode: Mode
    n_chains: int
    begun: Chains | None = None

    @property
    def n_begun(self) -> int:
        """Draws of each chain that are there already."""
        return 0 if self.begun is None else self.begun.n_draws


def _jobs(run: Run, earlier: Earlier | None) -> Iterator[_Job]:
    """First the chains that an earlier run has begun, then each mode's share of the others."""
    remaining = run.size.chains
    if earlier is not None:
        begun = earlier.chains.picked(np.s_[:remaining])
        remaining -= begun.n_chains
        yield _Job(run.starts[0], begun.n_chains, begun)
    share = np.arange(remaining) % len(run.starts)
    for m, mode in enumerate(run.starts):
        if n := int((share == m).sum()):
            yield _Job(mode, n)


def by_nutpie(run: Run, outlet: Outlet, earlier: Earlier | None) -> Chains:
    """All chains, one job after the other."""
    draws, tune, _ = run.size
    total, done = run.size.total, 0
    finished: list[Chains] = []
    for i, job in enumerate(_jobs(run, earlier)):
        if job.begun is not None and job.n_begun >= draws:
            finished.append(job.begun.cut(draws))
            continue

        def all_so_far(part: Chains, job: _Job = job, others: tuple[Chains, ...] = tuple(finished)) -> Chains:
            return reduce(Chains.beside, (*others, part if job.begun is None else job.begun.then(part)))

        def write(part: Chains, all_so_far: Callable[[Chains], Chains] = all_so_far) -> None:
            outlet.write(all_so_far(part))

        def tell(n: int, before: int = done + job.n_chains * job.n_begun) -> None:
            outlet.progress(before + n, total)

        chains = nutpie_draws(
            run.density,
            job.mode,
            draws=draws - job.n_begun,
            tune=tune,
            chains=job.n_chains,
            seed=run.seed if i == job.n_begun == 0 else _seed(run.seed, i, job.n_begun),
            starts=None if job.begun is None else job.begun.thetas[:, -1],
            progress=tell,
            on_part=None if outlet.file is None else write,
        )
        done += job.n_chains * (draws + tune)
        finished.append(chains if job.begun is None else job.begun.then(chains))
        if not chains.complete:
            break
    together = reduce(Chains.beside, finished)
    if together.complete:
        outlet.progress(total, total)
    return together


def by_gibbs(run: Run, outlet: Outlet, _earlier: Earlier | None) -> Chains:
    """All chains by Gibbs sampling of the assignments, until they have mixed."""
    return gibbs_draws(
        run.density,
        [run.density.unpack(mode.origin) for mode in run.modes],
        draws=run.size.draws,
        tune=run.size.tune,
        chains=run.size.chains,
        rng=np.random.default_rng([run.seed, 3]),
        mixed=lambda chains: mixed(run.posterior(chains)),
        progress=lambda share: outlet.progress(round(share * run.size.total), run.size.total),
    )


def _seed(*numbers: int) -> int:
    return int(np.random.default_rng(numbers).integers(2**31))
