"""Laws of tables in parts: wherever rows are stored, they give the same fit to the last digit."""

import gc

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import zarr

import bayesgmm as bg
from bayesgmm.expectation import NO_LABELS, Parameters, Pass, Rows, n_threads
from bayesgmm.observations import any_rows
from bayesgmm.parts import Recent
from bayesgmm.passes import InMemory, Products, Request, Streamed, held_out, survey
from bayesgmm.selection.run import Seeds

N, D = 70_000, 2


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    means = np.array([[0.0, 0.0], [4.0, 1.0], [0.0, 5.0]])
    return (means[rng.integers(3, size=N)] + rng.normal(size=(N, D))).astype(np.float32).astype(np.float64)


def chunks_of(X, size=9_999):
    return lambda: (X[i : i + size] for i in range(0, len(X), size))


@pytest.fixture(scope="module")
def sources(X, tmp_path_factory):
    """The same rows, stored in many ways."""
    folder = tmp_path_factory.mktemp("tables")
    np.save(folder / "whole.npy", X)
    np.save(folder / "single.npy", X.astype(np.float32))
    for i, part in enumerate(np.array_split(X, [12_345, 12_346, 50_000])):
        np.save(folder / f"part-{i}.npy", part)
        pq.write_table(pa.table({"a": part[:, 0], "b": part[:, 1]}), folder / f"part-{i}.parquet", row_group_size=7_001)
    h5py.File(folder / "x.h5", "w").create_dataset("X", data=X)
    zarr.save(str(folder / "x.zarr"), X)
    return {
        "npy": folder / "whole.npy",
        "npy in parts": str(folder / "part-*.npy"),
        "parquet": [folder / f"part-{i}.parquet" for i in range(4)],
        "dataset": ds.dataset(folder, format="parquet", exclude_invalid_files=True),
        "memory map": np.load(folder / "whole.npy", mmap_mode="r"),
        "float32": np.load(folder / "single.npy", mmap_mode="r"),
        "HDF5": h5py.File(folder / "x.h5", "r")["X"],
        "zarr": zarr.open(str(folder / "x.zarr"), mode="r"),
        "chunks": chunks_of(X),
    }


KINDS = ["npy", "npy in parts", "parquet", "dataset", "memory map", "float32", "HDF5", "zarr", "chunks"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_same_wherever_they_are(X, sources, kind):
    table = bg.open_table(sources[kind])
    assert (table.n_observations, table.n_features) == X.shape
    for start, stop in ((0, 10), (12_340, 12_350), (6_990, 50_010), (N - 1, N), (0, N)):
        np.testing.assert_array_equal(table.read(start, stop), X[start:stop])


@pytest.mark.parametrize("kind", KINDS)
def test_totals_have_the_same_digits_wherever_rows_are(X, sources, kind):
    rng, center = np.random.default_rng(1), X.mean(axis=0)
    requests = [
        Request(Parameters(np.full(K, -3.0), rng.normal(size=(K, D)), np.tile(np.eye(D), (K, 1, 1))), False, moments)
        for K, moments in ((3, True), (7, True), (2, False))
    ]
    requests += [requests[0]._replace(products=Products.BEND), requests[1]._replace(products=Products.SCORES)]
    streamed = Streamed(bg.open_table(sources[kind]), center).totals(requests)
    here = InMemory(Rows(X, np.ones(1), NO_LABELS, center)).totals(requests)
    for one, other in zip(streamed, here, strict=True):
        np.testing.assert_array_equal(one.high, other.high)


def test_totals_do_not_depend_on_the_order_of_adding(X):
    center = X.mean(axis=0)
    p = Parameters(np.full(2, -3.0), np.ones((2, D)), np.tile(np.eye(D), (2, 1, 1)))
    parts = [Pass(Rows(X[a : a + 4096], np.ones(1), NO_LABELS, center), p, False) for a in range(0, N, 4096)]
    sums = set()
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(parts))
        total = parts[order[0]].alone()
        for i in order[1:]:
            total.add(parts[i].alone())
        sums.add(total.high.tobytes())
    assert len(sums) == 1


def test_a_fit_has_the_same_digits_wherever_rows_are(X, sources):
    fits = {kind: bg.fit_em(sources[kind], 3, rng=0, n_starts=4) for kind in ("npy", "parquet", "float32", "chunks")}
    one = fits.pop("npy")
    for kind, fit in fits.items():
        assert fit.log_likelihood == one.log_likelihood, kind
        np.testing.assert_array_equal(fit.mixture.means, one.mixture.means)
    here = bg.fit_em(X, 3, rng=0, n_starts=4)
    assert one.log_likelihood == pytest.approx(here.log_likelihood, abs=2e-3)
    assert one.n_observations == N
    assert fits["parquet"].mixture.features == ("a", "b")


def test_a_fit_climbs_from_a_sample_to_the_maximum_over_all_rows(X, monkeypatch):
    monkeypatch.setattr("bayesgmm.em.large.SAMPLE_ROWS", 2_000)
    here = bg.fit_em(X, 3, rng=0, n_starts=4)
    told = []
    fit = bg.fit_em(chunks_of(X), 3, rng=0, n_starts=4, progress=lambda *step: told.append(step))
    assert fit.status is bg.Status.CONVERGED
    assert fit.log_likelihood == pytest.approx(here.log_likelihood, abs=2e-3)
    assert (np.diff(fit.log_likelihood_path) > -1e-6).all()
    assert ("pass 2", N, N) in told


@pytest.mark.parametrize("what", ["reg_covar", "priors"])
def test_the_log_likelihood_of_a_fit_is_that_of_the_rows_themselves(X, what):
    given = {what: 0.3 if what == "reg_covar" else bg.Priors.weakly_informative(X, 3)}
    fit = bg.fit_em(chunks_of(X), 3, rng=0, n_starts=2, **given)
    assert fit.log_likelihood == pytest.approx(fit.mixture.log_prob(X).sum(), abs=1e-6)
    largest = np.log(fit.mixture.responsibilities(X).max(axis=1)).sum()
    assert fit.map_log_responsibility == pytest.approx(largest, rel=1e-9)


def test_the_sample_depends_on_the_rows_alone(X, sources):
    one, other = (survey(bg.open_table(sources[kind]), 500, seed=3) for kind in ("npy", "chunks"))
    np.testing.assert_array_equal(one.sample, other.sample)
    np.testing.assert_array_equal(one.low, X.min(axis=0))
    np.testing.assert_array_equal(one.high, X.max(axis=0))
    assert 350 < len(one.sample) < 650  # 500 +- 6.7 standard deviations
    assert {tuple(row) for row in one.sample} <= {tuple(row) for row in X}


def test_a_bad_value_is_named_by_its_file_and_row(X, tmp_path):
    spoilt = X.copy()
    spoilt[66_000, 1] = np.inf
    for i, part in enumerate(np.array_split(spoilt, 4)):
        pq.write_table(pa.table({"a": part[:, 0], "b": part[:, 1]}), tmp_path / f"part-{i}.parquet")
    with pytest.raises(
        bg.InputError, match=r"row 13500 of part-3.parquet \(row 66000 in all\), column 'b' is infinite"
    ):
        bg.fit_em(f"{tmp_path}/*.parquet", 2)


@pytest.fixture(scope="module")
def holes(X):
    """The rows without a tenth of the values of one column and a fifth of the other's, so that some have none."""
    values = X.copy()
    values[np.random.default_rng(5).random(X.shape) < (0.1, 0.2)] = np.nan
    return values


def test_totals_of_rows_that_lack_values_are_those_in_memory_and_depend_on_no_cut(holes):
    rng, center = np.random.default_rng(2), np.zeros(2)
    P = np.array([[[1.0, 0.3], [0.0, 0.8]]] * 3)
    requests = [
        Request(Parameters(np.full(3, -2.0), rng.normal(size=(3, 2)), P * (np.eye(2) if diagonal else 1)), diagonal)
        for diagonal in (False, True)
    ]
    tables = [bg.open_table(lambda cuts=cuts: iter(np.array_split(holes, cuts))) for cuts in (1, 7)]
    one, other = (Streamed(table, center, incomplete=True).totals(requests) for table in tables)
    here = InMemory(any_rows(holes).rows(center)).totals(requests)
    for ours, again, theirs in zip(one, other, here, strict=True):
        np.testing.assert_array_equal(ours.high, again.high)
        np.testing.assert_allclose(ours.high, theirs.high, rtol=1e-12)


@pytest.mark.parametrize("model", ["full", "diag"])
def test_a_fit_to_rows_that_lack_values_is_that_in_memory(holes, model, monkeypatch):
    monkeypatch.setattr("bayesgmm.em.large.SAMPLE_ROWS", 5_000)
    fit = bg.fit_em(chunks_of(holes), 3, model, rng=0, n_starts=4)
    here = bg.fit_em(holes, 3, model, starts=[fit.mixture])
    assert fit.log_likelihood == pytest.approx(fit.mixture.log_prob(holes).sum(), rel=1e-12)
    assert fit.log_likelihood > here.log_likelihood - 2e-3
    assert (fit.missing, fit.total_weight) == (here.missing, here.total_weight)
    assert fit.bic == pytest.approx(here.bic, abs=4e-3)


def test_rows_that_lack_values_are_sampled_and_held_out_as_others_are(holes):
    assert np.isnan(bg.random_rows(chunks_of(holes), 500, rng=0)).any()
    selection = bg.select(chunks_of(holes), (2, 3), rng=0, n_starts=3)
    rows = holes[held_out(Seeds.of(0).folds, 0, N)]
    rows = rows[~np.isnan(rows).all(axis=1)]
    assert selection.held_out.n_rows == len(rows)
    expected = [fit.mixture.log_prob(rows).mean() for fit in selection.fits.values()]
    np.testing.assert_allclose(selection.held_out.log_density, expected, rtol=1e-12)


def test_what_needs_complete_rows_refuses_those_that_lack_values(X, holes):
    fit = bg.fit_em(chunks_of(holes), 1, rng=0)
    for question in (bg.sample_posterior, lambda table, fit: fit.standard_errors(table)):
        with pytest.raises(bg.InputError, match=r"rows lack a value: .*can be had of complete rows only"):
            question(chunks_of(holes), fit)
    complete = bg.fit_em(chunks_of(X), 1, rng=0)
    with pytest.raises(bg.InputError, match="rows lack a value, and none did in the table that was fitted"):
        bg.sample_posterior(chunks_of(holes), complete)
    with pytest.raises(bg.InputError, match="another table than was fitted"):
        complete.standard_errors(chunks_of(holes))


def test_a_column_without_values_is_named(X):
    values = X.copy()
    values[:, 1] = np.nan
    with pytest.raises(bg.InputError, match="column 'x1' has no values; leave it out"):
        bg.fit_em(chunks_of(values), 2)


def test_files_that_cannot_be_used_are_named(tmp_path):
    for name, content, message in (
        ("a.csv", "x,y\n1,2\n", "no table that can be read in parts"),
        ("b.npy", "no array", r"b\.npy is not an array that numpy saved"),
        ("c.parquet", "no table", r"c\.parquet is not a Parquet file"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(bg.InputError, match=message):
            bg.open_table(tmp_path / name)
    with pytest.raises(bg.InputError, match="no file"):
        bg.open_table(tmp_path / "none.npy")
    with pytest.raises(bg.InputError, match="no file is called"):
        bg.open_table(str(tmp_path / "none-*.npy"))
    pd.DataFrame({"a": [1.0, 2.0], "kind": ["u", "v"]}).to_parquet(tmp_path / "d.parquet")
    with pytest.raises(bg.InputError, match=r"column 'kind' of .*d.parquet holds .*string, not numbers"):
        bg.open_table(tmp_path / "d.parquet")
    assert bg.open_table(tmp_path / "d.parquet", columns=["a"]).features == ("a",)
    pd.DataFrame({"b": [1.0]}).to_parquet(tmp_path / "e.parquet")
    with pytest.raises(bg.InputError, match="has no column 'a'"):
        bg.open_table([tmp_path / "d.parquet", tmp_path / "e.parquet"], columns=["a"])
    np.save(tmp_path / "f.npy", np.zeros((2, 3)))
    np.save(tmp_path / "g.npy", np.zeros((2, 4)))
    with pytest.raises(bg.InputError, match=r"the columns of .*g\.npy"):
        bg.open_table([tmp_path / "f.npy", tmp_path / "g.npy"])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"b": [1.0], "a": [2.0]},
            r"columns of .*b.parquet, \['b', 'a'\], are in another order than those of .*a.parquet",
        ),
        ({"a": [1.0], "c": [2.0]}, r"columns of .*b.parquet, \['a', 'c'\], are not those of .*a.parquet"),
        ({"a": ["u"], "b": [2.0]}, r"column 'a' of .*b.parquet holds .*string, not numbers"),
        ({"a": [None], "b": [2.0]}, r"column 'a' of .*b.parquet holds null, not numbers"),
        ({"a": np.empty(0), "b": np.empty(0)}, r"b.parquet has no rows; write it again if some are missing"),
    ],
    ids=["order", "name", "text", "null", "empty"],
)
def test_files_whose_columns_drift_and_empty_ones_are_named(tmp_path, other, message):
    pq.write_table(pa.table({"a": [1.0, 2.0], "b": [0.0, 1.0]}), tmp_path / "a.parquet")
    pq.write_table(pa.table(other), tmp_path / "b.parquet")
    with pytest.raises(bg.InputError, match=message):
        bg.open_table(f"{tmp_path}/*.parquet")


def test_whole_numbers_and_single_precision_are_numbers_too(tmp_path):
    pq.write_table(pa.table({"a": [1.5]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"a": [2]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"a": np.array([0.5], np.float32)}), tmp_path / "c.parquet")
    np.testing.assert_array_equal(bg.open_table(f"{tmp_path}/*.parquet").read(0, 3), [[1.5], [2.0], [0.5]])


def test_random_rows_are_rows_of_the_table_each_once(X):
    rows = bg.random_rows(chunks_of(X), 3_000, rng=0)
    places = {row.tobytes(): i for i, row in enumerate(X)}
    found = [places[row.tobytes()] for row in rows]
    assert (np.diff(found) > 0).all()
    assert len(found) == 3_000
    np.testing.assert_array_equal(bg.random_rows(chunks_of(X[:50], 7), 60, rng=0), X[:50])


def test_what_stays_loaded_does_not_grow_with_the_number_of_tables():
    before = set(Recent._loaded)
    tables = [Recent(lambda i: np.full(3, float(i))) for _ in range(12)]
    for table in tables:
        assert table(7)[0] == 7
    assert len(Recent._loaded) <= n_threads() + 1
    assert set(Recent._loaded) - before
    del table, tables
    gc.collect()
    assert set(Recent._loaded) <= before


def test_threads_take_rows_in_turn_that_are_had_one_after_another(X, monkeypatch):
    monkeypatch.setattr("bayesgmm.expectation.n_threads", lambda: 8)
    monkeypatch.setattr("bayesgmm.expectation._pool", None)
    begun = []

    def chunks():
        begun.append(True)
        return (X[i : i + 70] for i in range(0, len(X), 70))

    table = bg.open_table(chunks)
    for _ in range(5):
        found = table.fold(lambda values, start: {start: values}, dict.update, 64, lambda done, total: None)
        np.testing.assert_array_equal(np.concatenate([found[start] for start in sorted(found)]), X)
    assert len(begun) == 1 + 5  # rows are counted first


def test_a_file_that_changes_is_noticed(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.ones((10, 2)))
    table = bg.open_table(path)
    np.save(path, np.ones((20, 2)))
    with pytest.raises(bg.InputError, match="has changed since it was opened"):
        table.read(0, 5)


def test_a_part_is_known_again_by_what_it_is_read_from(sources):
    same = {kind: bg.open_table(sources[kind]).parts[-1].mark for kind in KINDS}
    assert all(bg.open_table(sources[kind]).parts[-1].mark == mark for kind, mark in same.items())
    known = {kind for kind, mark in same.items() if mark}
    assert known == {"npy", "npy in parts", "parquet", "dataset", "memory map", "float32"}
    assert not bg.open_table(sources["memory map"][5:]).parts[0].mark
    assert len({same[kind] for kind in ("npy", "memory map", "float32", "parquet")}) == 4


@pytest.mark.parametrize("name", ["sample_weight", "labels", "error_sd"])
def test_arguments_with_an_entry_for_each_row_are_refused(sources, name):
    with pytest.raises(bg.InputError, match=f"{name} cannot be given with a table in parts"):
        bg.fit_em(sources["npy"], 2, **{name: np.ones(N)})


def test_a_constant_column_and_too_few_rows_are_refused():
    with pytest.raises(bg.InputError, match="column 'x1' is constant"):
        bg.fit_em(chunks_of(np.c_[np.arange(50.0), np.ones(50)], 7), 1)
    with pytest.raises(bg.InputError, match="gives no rows"):
        bg.fit_em(lambda: iter(()), 1)
    with pytest.raises(bg.InputError, match="chunk 1 has 3 columns, those before it 2"):
        bg.fit_em(lambda: iter([np.ones((2, 2)), np.ones((2, 3))]), 1)
