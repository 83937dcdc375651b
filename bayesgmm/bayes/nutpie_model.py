"""A density as nutpie takes it: by the address of its C function where nutpie's own class allows, else through Python.

That class is not part of nutpie's public interface, which takes Python functions only, at about 60 microseconds a call.
So it is used nowhere else, and only after a trial run has shown that it works.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from bayesgmm import native
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.priors import InverseWishart, NormalMeans, Priors
from bayesgmm.covariance import CovarianceModel
from bayesgmm.observations import Observations


def nutpie_model(density: Density, start: Callable[[int], np.ndarray]) -> Any:
    """A model for `nutpie.sample` with one variable, theta (n,); chains start at coordinates ``start(seed)`` (n,)."""
    broken = why_not_compiled()
    if broken is None:
        return _compiled(density, start)
    warnings.warn(
        f"this version of nutpie does not take compiled densities as bayesgmm hands them over ({broken}): sampling is "
        "slower, the draws are as good. Another version of either may be faster",
        stacklevel=2,
    )
    return _through_python(density, start)


@cache
def why_not_compiled() -> str | None:
    """What goes wrong when nutpie is handed the address of a C function; None where nothing does."""
    import nutpie

    one = np.ones(1)
    priors = Priors(one, NormalMeans(one, 2 * one), InverseWishart(3.0, np.eye(1)))
    plain = Density(Observations(np.empty((0, 1)), ("x",), one), one, priors, CovarianceModel.named("V"))
    density = plain.whitened(np.array([1.0, 0.5]), np.array([[2.0, 0.0], [0.1, 0.8]]))
    try:
        model = _compiled(density, lambda seed: np.zeros(2))
        trace = nutpie.sample(model, draws=5, tune=20, chains=1, cores=1, seed=0, progress_bar=False)
        thetas, heights = trace["posterior"]["theta"].values[0], trace["sample_stats"]["logp"].values[0]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic is no Exception
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if thetas.shape != (5, 2) or not np.allclose(heights, plain.log_densities(thetas)):
        return "its draws are not those of the density"
    return None


def _compiled(density: Density, start: Callable[[int], np.ndarray]) -> Any:
    """The model by nutpie's own class, which calls the C function without Python."""
    from nutpie.compile_pymc import CompiledPyMCModel

    def with_address(function: Any) -> SimpleNamespace:
        return SimpleNamespace(address=ctypes.cast(function, ctypes.c_void_p).value)

    n = density.n_dim
    return CompiledPyMCModel(
        dims={},
        compiled_logp_func=with_address(native.log_density),
        compiled_expand_func=with_address(native.to_theta),
        initial_point_func=start,
        shared_data={},
        shared_var_keys={},
        user_data=SimpleNamespace(ctypes=SimpleNamespace(data=density.handle), owner=density),
        n_expanded=n,
        shape_info=(["theta"], [slice(0, n)], [(n,)]),
        logp_func=None,
        expand_func=None,
        _n_dim=n,
        _shapes={"theta": (n,)},
        _coords={},
    )


def _through_python(density: Density, start: Callable[[int], np.ndarray]) -> Any:
    """The model by nutpie's public interface."""
    from nutpie.compiled_pyfunc import from_pyfunc

    return from_pyfunc(
        density.n_dim,
        lambda: density,
        lambda *seeds: lambda x: {"theta": density.expanded(x)},
        [np.dtype(np.float64)],
        [(density.n_dim,)],
        ["theta"],
        make_initial_point_fn=start,
    )
