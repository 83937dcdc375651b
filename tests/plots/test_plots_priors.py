"""What priors expect."""

import numpy as np
import pytest
from pictures import table

import bayesgmm as bg
from bayesgmm import plots


@pytest.mark.parametrize(
    ("name", "K", "covariance"), [("galaxies", 4, "full"), ("old_faithful", 3, "tied"), ("wide", 2, "VII")]
)
def test_prior_check_shows_what_the_priors_draw_beside_the_table(name, K, covariance, tmp_path):
    X = np.asarray(table(name))
    priors = bg.Priors.weakly_informative(X, K)
    figure = plots.prior_check(X, priors, covariance=covariance, rng=0)
    figure.savefig(tmp_path / "prior_check", format="png", dpi=40)
    shown, drawn = min(X.shape[1], 4), priors.sample(1000, K, covariance, rng=np.random.default_rng(0))
    assert len(figure.axes) == 2 * (shown + 1) - (shown == 1)
    for j in range(shown):
        densities, sds = figure.axes[j], figure.axes[shown + 1 + j]
        mean = next(line for line in densities.lines if line.get_color() == "black")
        at = mean.get_xdata()
        np.testing.assert_allclose(mean.get_ydata(), np.exp(drawn.marginal([j]).log_prob(at[:, None])).mean(axis=0))
        assert at.min() < X[:, j].min()
        assert X[:, j].max() < at.max()
        assert sds.lines[0].get_xdata()[0] == pytest.approx(X[:, j].std())
        counted_sds = sum(bar.get_height() for bar in sds.patches)
        assert 0.98 < counted_sds / (1000 * K) <= 1
    bars = [patch.get_height() for patch in figure.axes[shown].patches]
    assert len(bars) == K
    assert sum(bars) == pytest.approx(1)
    assert (f"first 4 of {X.shape[1]} features" in figure.get_suptitle()) == (X.shape[1] > 4)


PRIORS = {
    "one concentration": lambda X: bg.Priors(0.01, *parts(X), bg.InverseWishart(4, np.cov(X.T))),
    "hierarchical": lambda X: bg.Priors(1.0, *parts(X), bg.HierarchicalInverseWishart(4, 3, np.cov(X.T) / 3)),
    "LKJ": lambda X: bg.Priors(1.0, *parts(X), bg.LKJ(2, bg.HalfNormal(X.std(axis=0)))),
}


def parts(X):
    return (bg.NormalMeans(X.mean(axis=0), 2 * X.std(axis=0)),)


@pytest.mark.parametrize("priors", PRIORS.values(), ids=PRIORS)
def test_prior_check_serves_every_kind_of_prior(priors, tmp_path):
    X = np.asarray(table("old_faithful"))
    plots.prior_check(X, priors(X), 3, rng=0).savefig(tmp_path / "prior_check", format="png", dpi=40)


def test_prior_check_has_the_default_priors_and_says_what_it_lacks():
    X = np.asarray(table("old_faithful"))
    ours = plots.prior_check(X, bg.Priors.weakly_informative(X, 2), rng=0)
    default = plots.prior_check(X, n_components=2, rng=0)
    for a, b in zip(ours.axes[0].lines, default.axes[0].lines, strict=True):
        np.testing.assert_array_equal(a.get_ydata(), b.get_ydata())
    with pytest.raises(bg.InputError, match="needs n_components"):
        plots.prior_check(X)
    with pytest.raises(bg.InputError, match="for 2 features, the table has 1"):
        plots.prior_check(X[:, :1], bg.Priors.weakly_informative(X, 2))
