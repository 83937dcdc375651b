"""nutpie takes compiled densities, and others where it does not."""

import numpy as np
import pytest
from oracles import density_of, table

import bayesgmm as bg
from bayesgmm.bayes import nutpie_model
from bayesgmm.bayes.laplace import find_mode
from bayesgmm.bayes.nuts import nutpie_draws


def test_nutpie_takes_compiled_densities():
    """Else sampling goes through Python, slowly: `nutpie_model` is to be fitted to what nutpie has become."""
    assert nutpie_model.why_not_compiled() is None


def test_where_nutpie_takes_no_compiled_density_the_draws_are_the_same(faithful_fit, monkeypatch):
    X, fit = table("old_faithful"), faithful_fit
    density = density_of(X, fit, bg.Priors.weakly_informative(X, 2))
    mode = find_mode(density, density.pack(fit.mixture))
    options = {"draws": 50, "tune": 50, "chains": 2, "seed": 3}
    expected = nutpie_draws(density, mode, **options)
    monkeypatch.setattr(nutpie_model, "_compiled", lambda density, start: None)
    nutpie_model.why_not_compiled.cache_clear()
    with pytest.warns(UserWarning, match="hands them over .*NoneType.*: sampling is slower"):
        drawn = nutpie_draws(density, mode, **options)
    nutpie_model.why_not_compiled.cache_clear()
    np.testing.assert_allclose(drawn.thetas, expected.thetas, rtol=1e-9)
    assert drawn.statistics.keys() >= {"diverging", "lp"}
