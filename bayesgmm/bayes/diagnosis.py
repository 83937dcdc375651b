"""Whether to trust the draws, in words."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.stats import chi2

VARIABLES = ("weights", "means", "covariances")


class Verdict(NamedTuple):
    """Outcome of the convergence check."""

    good: bool
    text: str


def convergence(tree: xr.DataTree) -> Verdict:
    """Check R-hat < 1.01, bulk and tail ESS > 100 per chain, divergences and E-BFMI > 0.3 (Vehtari et al. 2021).

    An R-hat above 1.01 counts only where chance would hardly give it (one in 10 000) at the parameter's ESS.
    """
    import arviz as az

    posterior = tree["posterior"].to_dataset()[list(VARIABLES)]
    statistics = tree["sample_stats"]
    chains = posterior.sizes["chain"]
    if posterior.sizes["draw"] < 4:
        return Verdict(False, "Not checked: convergence cannot be judged from fewer than four draws a chain.")
    with np.errstate(invalid="ignore"):  # a constant, as the weight of a single component, has no R-hat
        bulk, tail = _flat(az.ess(posterior)), _flat(az.ess(posterior, method="tail"))
        r_hat = _flat(az.rhat(posterior)) if chains > 1 else {}
    faults = []
    halves = 2 * chains
    chance = chi2.ppf(0.9999, halves - 1) / (halves - 1)
    suspicious = {
        name: r for name, r in r_hat.items() if r > max(1.01, 1 + 0.5 * chance * halves / min(bulk[name], tail[name]))
    }
    if suspicious:
        worst = max(suspicious, key=lambda name: suspicious[name])
        faults.append(f"the chains disagree about {worst} (R-hat {suspicious[worst]:.3f})")
    for kind, ess in (("bulk", bulk), ("tail", tail)):
        worst = min(ess, key=lambda name: ess[name])
        if ess[worst] < 100 * chains:
            faults.append(f"{worst} has a {kind} effective sample size of {ess[worst]:.0f}, below {100 * chains}")
    divergences = int(statistics["diverging"].sum())
    if divergences:
        faults.append(f"{divergences} transition{'s' * (divergences > 1)} diverged")
    bfmi = float(az.bfmi(tree)["energy"].min())
    if bfmi < 0.3:
        faults.append(f"the energy mixes badly (E-BFMI {bfmi:.2f})")
    if faults:
        return Verdict(
            False,
            f"Not converged: {'; '.join(faults)}. Draw longer (tune, draws), or use fewer components or a simpler "
            "covariance.",
        )
    agree = f"chains agree (R-hat at most {max(r_hat.values()):.3f}), " if r_hat else "one chain, so no R-hat; "
    return Verdict(True, f"Converged: {agree}effective sample size at least {min(bulk.values()):.0f}, no divergences.")


def _flat(diagnostic: xr.Dataset) -> dict[str, float]:
    """Value by parameter, without those that are fixed."""
    flat = {}
    for name, array in diagnostic.data_vars.items():
        for index in np.ndindex(array.shape):
            where = ", ".join(str(array[dim].values[i]) for dim, i in zip(array.dims, index, strict=True))
            if np.isfinite(array.values[index]):
                flat[f"{name}[{where}]"] = float(array.values[index])
    return flat
