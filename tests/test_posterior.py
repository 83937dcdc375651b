"""`Posterior`: what a tree holds as one value, whichever part of it there is."""

from dataclasses import fields, replace

import numpy as np
import pytest
import xarray as xr
from oracles import random_mixture, table

import bayesgmm as bg
from bayesgmm.bayes.posterior import Posterior
from bayesgmm.bayes.tree import tree_of, write_tree
from bayesgmm.observations import observations

PARAMETERS = ("weights", "means", "covariances")


@pytest.fixture(params=["faithful", "laplace", "iris", "galaxies"])
def tree(request):
    return request.getfixturevalue(f"{request.param}_posterior")


def assert_same_mixture(a, b):
    for name in PARAMETERS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.features == b.features


def assert_same_fit(a, b):
    assert_same_mixture(a.mixture, b.mixture)
    np.testing.assert_array_equal(a.log_likelihood_path, b.log_likelihood_path)
    assert (a.starts, a.status, a.bic, a.constraints) == (b.starts, b.status, b.bic, b.constraints)
    assert [m.log_likelihood for m in a.maxima] == [m.log_likelihood for m in b.maxima]


def assert_same_table(a, b):
    np.testing.assert_array_equal(a.values, b.values)
    np.testing.assert_equal(a.errors, b.errors)
    assert (a.features, a.named) == (b.features, b.named)


def assert_same(a, b):
    """Field by field."""
    compared = {
        "draws": assert_same_mixture,
        "em": assert_same_mixture,
        "fit": assert_same_fit,
        "table": assert_same_table,
        "log_likelihood": np.testing.assert_array_equal,
        "priors": lambda x, y: np.testing.assert_equal(x.to_json(), y.to_json()),
        "statistics": np.testing.assert_equal,
    }
    for name in (field.name for field in fields(Posterior)):
        x, y = getattr(a, name), getattr(b, name)
        compared.get(name, np.testing.assert_equal)(x, y)


def test_a_posterior_and_its_tree_hold_the_same(tree):
    once = bg.posterior(tree)
    assert_same(bg.posterior(tree_of(once, dict(tree.attrs))), once)


def test_a_file_gives_the_same_posterior(iris_posterior, tmp_path):
    write_tree(iris_posterior, tmp_path / "draws.nc")
    with xr.open_datatree(tmp_path / "draws.nc", engine="h5netcdf") as back:
        assert_same(bg.posterior(back.load()), bg.posterior(iris_posterior))


@pytest.mark.parametrize("errors", ["none", "shared", "own", "shared covariance", "own covariances"])
def test_a_posterior_keeps_holes_and_errors(errors, tmp_path):
    """Bit by bit, through a tree and a file; so the density is still that of the draws' heights."""
    rng, X = np.random.default_rng(0), bg.datasets.iris().iloc[:60, :2]
    sd, S = 0.1 * rng.random((60, 2)), 0.01 * np.array([[2.0, 1.0], [1.0, 1.0]])
    given = {
        "none": {},
        "shared": {"error_sd": sd[0]},
        "own": {"error_sd": sd},
        "shared covariance": {"error_covariance": S},
        "own covariances": {"error_covariance": S * (1 + rng.random((60, 1, 1)))},
    }[errors]
    rows = observations(imperfect_values(X, rng), **given)
    tree = bg.sample_posterior(rows, bg.fit_em(rows, 1, rng=0), method="laplace", draws=20, chains=2, rng=0)
    once = bg.posterior(tree)
    assert_same_table(once.table, rows)
    write_tree(tree, tmp_path / "draws.nc")
    with xr.open_datatree(tmp_path / "draws.nc", engine="h5netcdf") as back:
        again = bg.posterior(back.load())
    assert_same(again, once)
    heights = again.density.log_densities(again.density.pack(again.draws))
    np.testing.assert_allclose(heights, once.statistics["lp"], rtol=1e-12)


def imperfect_values(X, rng):
    """A table with names, some of its values missing, and all of one row."""
    X = X.mask(rng.random(X.shape) < 0.2)
    X.iloc[3] = np.nan
    return X


def test_everything_is_known_of_a_posterior_that_was_drawn(faithful_fit, faithful_posterior):
    drawn = bg.posterior(faithful_posterior)
    assert (drawn.n_components, drawn.n_features, drawn.n_draws) == (2, 2, 4000)
    assert_same_mixture(drawn.em, faithful_fit.mixture)
    assert_same_fit(drawn.fit, faithful_fit)
    np.testing.assert_array_equal(drawn.rows, table("old_faithful"))
    assert drawn.features == ("x0", "x1")
    assert drawn.chain_labels == (0, 1, 2, 3)
    assert (drawn.covariance_model.name, drawn.labels.method, drawn.sampling.tune) == ("VVV", "hungarian", 500)
    assert drawn.log_likelihood.shape == (4, 1000, 272)
    heights = drawn.density.log_densities(drawn.density.pack(drawn.draws[0, :5]))
    np.testing.assert_allclose(drawn.statistics["lp"][0, :5], heights, rtol=1e-9)


def test_names_of_columns_are_kept(iris_posterior):
    drawn = bg.posterior(iris_posterior)
    assert drawn.features == tuple(bg.datasets.iris().columns)
    assert drawn.draws.features == drawn.features


def test_a_posterior_is_its_own():
    m = random_mixture(np.random.default_rng(0), 2, 3, batch=(2, 5))
    drawn = bg.posterior(m)
    assert bg.posterior(drawn) is drawn
    assert drawn.draws is m
    assert bg.as_mixture(drawn) is m


def test_draws_alone_are_a_posterior_of_which_little_is_known():
    drawn = bg.posterior(random_mixture(np.random.default_rng(0), 2, 3, batch=(2, 5)))
    unknown = ("table", "em", "fit", "priors", "verdict", "labels", "log_likelihood")
    assert [getattr(drawn, name) for name in unknown] == [None] * 7
    assert (drawn.features, drawn.chain_labels, dict(drawn.statistics)) == (("x0", "x1", "x2"), (0, 1), {})
    with pytest.raises(bg.InputError, match="its table and priors"):
        _ = drawn.density


@pytest.mark.parametrize("some", [{"chain": [1, 3]}, {"draw": slice(20, 60)}, {"chain": [2], "draw": [5, 0]}], ids=str)
def test_some_chains_and_draws_of_a_tree_keep_what_belongs_to_them(faithful_posterior, some):
    index = np.ix_(*(np.arange(n)[some.get(dim, slice(None))] for dim, n in (("chain", 4), ("draw", 1000))))
    whole, part = bg.posterior(faithful_posterior), bg.posterior(faithful_posterior.isel(some))
    for name in PARAMETERS:
        np.testing.assert_array_equal(getattr(part.draws, name), getattr(whole.draws, name)[index])
    assert part.chain_labels == tuple(np.arange(4)[some.get("chain", slice(None))].tolist())
    np.testing.assert_array_equal(part.statistics["lp"], whole.statistics["lp"][index])
    np.testing.assert_array_equal(part.log_likelihood, np.asarray(whole.log_likelihood)[index])


def test_one_chain_without_its_dimension_is_a_posterior_of_one_chain(faithful_posterior):
    part = bg.posterior(faithful_posterior.isel(chain=2))
    assert part.draws.batch_shape == (1, 1000)
    assert part.statistics["lp"].shape == (1, 1000)


LEFT_OUT = {  # the fields that are not known without a group
    "em": {"em", "fit"},
    "sample_stats": {"statistics"},
    "log_likelihood": {"log_likelihood"},
    "observed_data": {"table"},
}


@pytest.mark.parametrize("group", LEFT_OUT)
def test_a_tree_without_a_group_lacks_only_what_was_in_it(faithful_posterior, group):
    drawn = bg.posterior(faithful_posterior.drop_nodes(group))
    values = {field.name: getattr(drawn, field.name) for field in fields(drawn)}
    unknown = {name for name, value in values.items() if value is None or (isinstance(value, dict) and not value)}
    assert unknown - {"sample", "source"} == LEFT_OUT[group]  # these two are of tables in parts


def test_a_tree_of_draws_alone_is_a_posterior(faithful_posterior):
    tree = xr.DataTree.from_dict({"posterior": faithful_posterior["posterior"].to_dataset()})
    drawn = bg.posterior(tree)
    assert_same_mixture(drawn.draws, bg.as_mixture(faithful_posterior))
    assert drawn.table is drawn.em is drawn.verdict is None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (random_mixture(np.random.default_rng(0), 2, 2), "no batch axis"),
        (random_mixture(np.random.default_rng(0), 2, 2, batch=(3, 2))[:, :0], "no batch axis"),
        (xr.DataTree(), "needs a posterior: the DataTree that sample_posterior returned, .* not DataTree"),
        ("draws.nc", "not str"),
    ],
    ids=["one mixture", "no draws", "an empty tree", "a path"],
)
def test_what_is_no_posterior_is_refused(source, message):
    with pytest.raises(bg.InputError, match=message):
        bg.posterior(source)


def test_an_em_fit_is_told_from_a_posterior(faithful_fit):
    with pytest.raises(bg.InputError, match=r"not an EM fit; draw one with sample_posterior\(X, fit\)"):
        bg.posterior(faithful_fit)


def test_a_posterior_cannot_be_changed(faithful_posterior):
    drawn = bg.posterior(faithful_posterior)
    with pytest.raises(AttributeError, match="cannot assign"):
        drawn.table = None
    with pytest.raises(ValueError, match="read-only"):
        drawn.draws.means[0, 0] = 0.0


def test_a_posterior_shares_the_stored_log_likelihood_with_its_tree(faithful_posterior):
    """It is by far the largest of all arrays: a copy would double the memory."""
    stored = faithful_posterior["log_likelihood"]["observations"].values
    assert np.shares_memory(bg.posterior(faithful_posterior).log_likelihood.values, stored)
    some = faithful_posterior.isel(draw=slice(0, None, 10))
    np.testing.assert_array_equal(bg.posterior(some).log_likelihood.values, stored[:, ::10])


def test_draws_that_the_other_groups_do_not_have_are_known_by_themselves_alone(faithful_posterior):
    parts = {name: group.to_dataset() for name, group in faithful_posterior.children.items()}
    others = parts["posterior"].assign_coords(chain=[7, 8, 9, 10])
    drawn = bg.posterior(xr.DataTree.from_dict(parts | {"posterior": others}))
    assert drawn.chain_labels == (7, 8, 9, 10)
    assert drawn.statistics == {}
    assert drawn.log_likelihood is None


def test_relabelled_draws_replace_the_old_ones(iris_posterior):
    drawn = bg.posterior(iris_posterior)
    labels = replace(drawn.labels, method="ecr")
    moved = drawn.with_draws(drawn.draws.permute([2, 0, 1]), labels)
    np.testing.assert_array_equal(moved.draws.means, drawn.draws.means[..., [2, 0, 1], :])
    assert (moved.labels.method, moved.fit, moved.table is drawn.table) == ("ecr", drawn.fit, True)
