"""Pictures show what they say, for every number of components and features."""

import inspect
import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import bayesgmm as bg
from bayesgmm import plots
from bayesgmm.covariance import NAMES
from bayesgmm.names import counted, in_picture, short

CASES = {
    "one feature, one component": ("galaxies", 1, 1, "full"),
    "one feature": ("galaxies", 1, 3, "full"),
    "two features, one component": ("old_faithful", 2, 1, "full"),
    "two features": ("old_faithful", 2, 2, "full"),
    "two features, diagonal": ("elongated", 2, 6, "diag"),
    "four features, tied": ("iris", 4, 3, "tied"),
    "six features, seven components": ("wide", 6, 7, "spherical"),
}


def table(name):
    if name == "wide":
        rng = np.random.default_rng(0)
        return 9.0 * np.repeat(np.eye(7)[:, :6], 12, axis=0) + rng.normal(size=(84, 6))
    return getattr(bg.datasets, name)()


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def drawn(request):
    """A fit, its posterior, and their pictures."""
    name, _, K, covariance = request.param
    X = table(name)
    fit = bg.fit_em(X, K, covariance, n_starts=4, rng=0)
    tree = few_draws(X, fit)
    return fit, tree, pictures_of(X, fit, tree)


def pictures_of(X, fit, tree):
    pictures = {
        "clusters": plots.clusters(X, fit, tree),
        "em_path": plots.em_path(fit),
        "posterior": plots.posterior(tree, fit),
        "prior_check": plots.prior_check(X, bg.Priors.weakly_informative(X, fit.n_components), rng=0),
    }
    if fit.n_components > 1:
        assignments, found = bg.assign(tree), bg.partition(tree, rng=0)
        grouped = bg.assign(tree, partition=found)
        pictures |= {
            "clusters by cluster": plots.clusters(X, fit, tree, grouped),
            "posterior by cluster": plots.posterior(tree, fit, partition=found),
            "uncertainty by cluster": plots.uncertainty(tree, grouped),
            "least_certain by cluster": plots.least_certain(grouped),
            "uncertainty": plots.uncertainty(tree, assignments),
            "least_certain": plots.least_certain(assignments),
            "similarity": plots.similarity(tree, found),
            "credible_ball": plots.credible_ball(X, found, bg.credible_ball(tree, found, rng=0)),
        }
    return pictures


def few_draws(X, fit):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.ConvergenceWarning)  # so few draws never suffice
        return bg.sample_posterior(X, fit, draws=30, tune=50, chains=2, rng=0)


def words(figure):
    texts = [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    labels = [f"{ax.get_title()} {ax.get_xlabel()} {ax.get_ylabel()}" for ax in figure.axes]
    return " ".join([figure.get_suptitle(), *texts, *labels])


def test_every_picture_can_be_drawn(drawn, tmp_path):
    for name, figure in drawn[2].items():
        figure.savefig(tmp_path / name, format="png", dpi=40)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_axes_bear_the_names_of_the_columns(drawn):
    fit, _, pictures = drawn
    assert set(fit.features[:4]) <= set(words(pictures["clusters"]).split())
    assert set(fit.features[:3]) <= set(words(pictures["posterior"]).split())


NASTY = [
    "in_$ (out_$)",
    r"$\frac{$",
    r"$\undefined$",
    r"\$a\$ $b",
    "$$",
    "_hidden",
    "{%d} & #1 ~^",
    "[red]bold[/red]",
    "two\nlines\tand a bell\a",
    "",
    " ",
    "Größe µ²",
    "a very long name " * 20,
]


@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_shown_character_by_character(name):
    pictures = []
    for text, formulas in ((in_picture(name), True), (short(name, 18), False)):
        figure = Figure(figsize=(3, 0.5), dpi=50)
        figure.text(0, 0.5, text, parse_math=formulas)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pictures.append(np.asarray(canvas.buffer_rgba()))
    np.testing.assert_array_equal(*pictures)
    assert len(np.unique(pictures[0])) > 1  # something is to be seen
    assert len(short(name)) <= 20 and short(name).isprintable()


@pytest.mark.parametrize("names", [NASTY[:1], NASTY[1:6:4], NASTY[2:13:5]])
def test_no_name_of_a_column_spoils_a_picture(names, tmp_path):
    X = pd.DataFrame(np.asarray(bg.datasets.iris())[:, : len(names)], columns=names)
    fit = bg.fit_em(X, 2, n_starts=4, rng=0)
    for name, figure in pictures_of(X, fit, few_draws(X, fit)).items():
        figure.savefig(tmp_path / name, format="png", dpi=40)
    assert in_picture(names[0]) in words(plots.clusters(X, fit))


def test_what_is_left_out_is_said(drawn):
    fit, _, pictures = drawn
    D, K = fit.n_features, fit.n_components
    assert (f"4 of {D} features" in words(pictures["clusters"])) == (D > 4)
    assert (f"first 3 of {D} features" in words(pictures["posterior"])) == (D > 3)
    assert (f"first 6 of {K} components" in words(pictures["posterior"])) == (K > 6)


def test_the_legend_counts_the_rows_of_each_component(drawn):
    fit, tree, pictures = drawn
    counts = np.bincount(bg.assign(tree).labels, minlength=fit.n_components)
    for k, n in enumerate(counts):
        assert f"component {k} ({n} row" in words(pictures["clusters"])


def test_pictures_by_cluster_show_the_partition_and_no_component(drawn):
    fit, tree, pictures = drawn
    if fit.n_components == 1:
        pytest.skip("one component has no other")
    found = bg.partition(tree, rng=0)
    for name, figure in pictures.items():
        if name.endswith("by cluster"):
            said = words(figure)
            assert "component 0" not in said and "EM" not in said
            assert f"cluster {min(found.n_clusters, 6) - 1}" in said
    for c, n in enumerate(np.bincount(found.labels)):
        assert f"cluster {c} ({n} row" in words(pictures["clusters by cluster"])
    black = [line for ax in pictures["posterior by cluster"].axes for line in ax.lines if line.get_color() == "black"]
    assert black == []


def test_the_clusters_densities_add_up_to_the_posterior_mean_density(drawn):
    fit, tree, pictures = drawn
    if fit.n_components == 1 or fit.n_features == 2:
        pytest.skip("without densities by cluster")
    lines = pictures["clusters by cluster"].axes[0].lines
    whole = next(line for line in lines if line.get_color() == "black")
    parts = [line.get_ydata() for line in lines if len(line.get_xdata()) == 400 and line is not whole]
    np.testing.assert_allclose(np.sum(parts, axis=0), whole.get_ydata())
    marginal = bg.as_mixture(tree).marginal([0])
    mean = np.exp(marginal.log_prob(whole.get_xdata()[:, None])).mean(axis=(0, 1))
    loose = 1e-9 if fit.n_features == 1 else 0.2  # of all draws, or of 50
    np.testing.assert_allclose(whole.get_ydata(), mean, atol=loose * mean.max())


def test_clusters_need_the_posterior_to_be_outlined():
    X = bg.datasets.old_faithful()
    fit = bg.fit_em(X, 2, rng=0)
    tree = few_draws(X, fit)
    with pytest.raises(bg.InputError, match="give the tree too"):
        plots.clusters(X, fit, assignments=bg.assign(tree, partition=bg.partition(tree, rng=0)))


def test_the_posterior_picture_marks_the_em_estimate(drawn):
    fit, _, pictures = drawn
    lines = [line for ax in pictures["posterior"].axes for line in ax.lines if line.get_color() == "black"]
    marked = {float(x) for line in lines for x in line.get_xdata()}
    K = min(fit.n_components, 6)
    weights = fit.mixture.weights[:K].tolist() if K > 1 else []
    assert marked >= {*weights, *fit.mixture.means[:K, :3].ravel().tolist()}


def test_a_component_keeps_its_colour():
    assert [plots._color(k) for k in range(6)] == [to_hex(c).upper() for c in plots._COLORS]
    styles = [(plots._color(k), plots._marker(k)) for k in range(30)]
    assert len(set(styles)) == 30


def test_an_ellipse_lies_at_its_mahalanobis_distance():
    fit = bg.fit_em(bg.datasets.iris(), 2, rng=0)
    outline = plots._ellipses(fit.mixture, 1, (2, 0), 2.0)
    two = fit.mixture.marginal((2, 0))
    offset = outline - two.means[1]
    squares = np.einsum("ni,ij,nj->n", offset, np.linalg.inv(two.covariances[1]), offset)
    np.testing.assert_allclose(squares, 4.0)


def test_stray_draws_do_not_shrink_the_rows():
    X = bg.datasets.old_faithful()
    fit = bg.fit_em(X, 2, rng=0)
    tree = few_draws(X, fit)
    limits = plots.clusters(X, fit, tree).axes[0].get_xlim()
    means = tree["posterior"]["means"].copy()
    means[0, 0, 0] = 1e6
    tree["posterior"]["means"] = means
    assert plots.clusters(X, fit, tree).axes[0].get_xlim() == limits


def test_of_many_rows_some_are_drawn_and_all_are_counted():
    X = np.random.default_rng(0).normal(size=(6000, 2))
    figure = plots.clusters(X, bg.fit_em(X, 1))
    assert len(figure.axes[0].collections[0].get_offsets()) == 5000
    assert "5000 of 6000 rows" in words(figure) and "(6000 rows)" in words(figure)


def test_a_point_is_the_larger_the_less_certain_it_is():
    X = bg.datasets.elongated()
    fit = bg.fit_em(X, 3, rng=0)
    sizes, certainty = [], []
    for k, points in enumerate(plots.clusters(X, fit).axes[0].collections):
        sizes.append(points.get_sizes())
        certainty.append(fit.mixture.responsibilities(points.get_offsets())[:, k])
    order = np.argsort(np.concatenate(certainty))
    assert (np.diff(np.concatenate(sizes)[order]) <= 1e-9).all()


def test_a_picture_can_be_drawn_into_a_figure_of_ones_own():
    fit = bg.fit_em(bg.datasets.galaxies(), 2, rng=0)
    own = Figure()
    assert plots.em_path(fit, figure=own) is own


def test_no_global_state_of_pyplot_is_touched():
    assert "pyplot" not in inspect.getsource(plots)


@pytest.mark.parametrize("criteria", [("bic",), ("icl", "aic"), ("bic", "icl", "cv")])
def test_criteria_show_every_model_and_mark_the_best(criteria, tmp_path):
    chosen = bg.select(table("elongated"), range(1, 5), ("full", "EVE", "VEE"), criteria, n_starts=4, rng=0, n_folds=4)
    figure = plots.criteria(chosen)
    figure.savefig(tmp_path / "criteria", format="png", dpi=40)
    said = words(figure)
    assert {"VVV", "EVE", "VEE"} <= set(said.split())
    assert len(figure.axes) == len(criteria) + 1  # how often BIC or ICL chose each K
    for ax, name in zip(figure.axes, criteria, strict=False):
        best = chosen.best(name)
        assert f"{best.covariance_model.name}, K = {best.n_components}" in ax.get_title()
        ring = next(line for line in ax.lines if line.get_markersize() == 12)
        assert ring.get_xdata() == [best.n_components]
        assert ax.get_ylim()[0] < ring.get_ydata()[0] < ax.get_ylim()[1]
    bars = [patch.get_height() for patch in figure.axes[-1].patches]
    assert sum(bars) == pytest.approx(sum(name in ("bic", "icl") for name in criteria))


def test_a_covariance_model_has_a_look_of_its_own():
    looks = {tuple(sorted(plots._model_style(name).items())) for name in NAMES}
    assert len(looks) == 14


def test_pictures_of_clusters_say_what_they_show(drawn):
    fit, tree, pictures = drawn
    if fit.n_components == 1:
        pytest.skip("one component has no doubt")
    found = bg.partition(tree, rng=0)
    assert f"the partition: {found.n_clusters} clusters" in words(pictures["credible_ball"])
    texts = [text.get_text() for text in pictures["similarity"].axes[0].texts]
    assert [t.splitlines()[1] for t in texts] == [counted(n, "row") for n in np.bincount(found.labels).tolist()]
    shown = [t.get_text() for t in pictures["least_certain"].axes[0].get_yticklabels()]
    least = np.argmin(bg.assign(tree).label_probability)
    assert shown[0] == f"row {least}"
    assert "probability 0.5" in words(pictures["uncertainty"])


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
        assert at.min() < X[:, j].min() and X[:, j].max() < at.max()
        assert sds.lines[0].get_xdata()[0] == pytest.approx(X[:, j].std())
        counted_sds = sum(bar.get_height() for bar in sds.patches)
        assert 0.98 < counted_sds / (1000 * K) <= 1
    bars = [patch.get_height() for patch in figure.axes[shown].patches]
    assert len(bars) == K and sum(bars) == pytest.approx(1)
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


def test_pictures_of_a_selection_with_posteriors(tmp_path):
    X = np.asarray(table("old_faithful"))
    selection = bg.select(X, (2, 3), ("EEE", "VVI"), ("bic", "loo"), n_replicates=0, sampling={"draws": 250}, rng=0)
    figure = plots.predictions(selection)
    assert "nats, ± 2 standard errors" in words(figure)
    first = selection.ranking("loo").iloc[0]
    label = figure.axes[0].get_yticklabels()[0].get_text()
    assert label.startswith(f"{first['covariance']}, K = {first['n_components']}")
    plots.averaged(X, selection).savefig(tmp_path / "averaged.png", dpi=40)
    line = bg.select(X[:, :1], (1, 2), "V", ("bic", "loo"), n_replicates=0, sampling={"draws": 250}, rng=0)
    assert "average" in [t.get_text() for t in plots.averaged(X[:, :1], line).axes[0].get_legend().get_texts()]
