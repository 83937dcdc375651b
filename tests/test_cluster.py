"""Laws of tables that are Dask collections: on a cluster or without, they give what the same rows give in memory."""

import io
import os
import pickle
import signal
from itertools import product

import dask.array as da
import dask.bag
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

import bayesgmm as bg
from bayesgmm import cluster, sources
from bayesgmm.expectation import NO_LABELS, Parameters, Rows, chunk_rows
from bayesgmm.passes import SURVEY_ROWS, InMemory, Products, Request, Streamed, survey

N, D = 300_000, 2
RAGGED = (1, 65_535, 0, 70_001, 7, N - 135_544)  # rows of partitions; borders at multiples of chunks, and elsewhere


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    means = np.array([[0.0, 0.0], [4.0, 1.0], [0.0, 5.0]])
    return (means[rng.integers(3, size=N)] + rng.normal(size=(N, D))).astype(np.float32).astype(np.float64)


@pytest.fixture(scope="module")
def streamed(X, tmp_path_factory):
    """The rows as a memory-mapped array."""
    path = tmp_path_factory.mktemp("rows") / "X.npy"
    np.save(path, X)
    return np.load(path, mmap_mode="r")


@pytest.fixture(scope="session")
def workers():
    """A cluster, of one worker at first."""
    with LocalCluster(processes=True, n_workers=1, threads_per_worker=1, dashboard_address=":0") as local:
        yield local


@pytest.fixture
def client(workers):
    with Client(workers) as connected:
        yield connected


def ragged(X):
    return da.from_array(X, chunks=(RAGGED, D))


def frame(X):
    return dd.from_pandas(pd.DataFrame(X, columns=["a", "b"]), npartitions=5)


def requests():
    rng = np.random.default_rng(1)
    plain = [
        Request(Parameters(np.full(K, -3.0), rng.normal(size=(K, D)), np.tile(np.eye(D), (K, 1, 1))), diagonal, moments)
        for K, diagonal, moments in ((3, False, True), (7, True, True), (2, False, False))
    ]
    return [*plain, plain[0]._replace(products=Products.BEND), plain[1]._replace(products=Products.SCORES)]


def numbers(totals):
    return [total.high.tolist() for total in totals]


def same_fits(one, other):
    assert one.log_likelihood == other.log_likelihood
    np.testing.assert_array_equal(one.log_likelihood_path, other.log_likelihood_path)
    np.testing.assert_array_equal(one.mixture.means, other.mixture.means)
    np.testing.assert_array_equal(one.mixture.covariances, other.mixture.covariances)


@pytest.mark.parametrize("make", [ragged, frame])
def test_totals_have_the_same_digits_without_a_cluster(X, make):
    center = X.mean(axis=0)
    here = InMemory(Rows(X, np.ones(1), NO_LABELS, center)).totals(requests())
    table = bg.open_table(make(X))
    assert not isinstance(table, cluster.Kept)
    assert numbers(Streamed(table, center).totals(requests())) == numbers(here)


def test_totals_have_the_same_digits_on_one_two_and_four_workers(X, workers, client):
    center, told = X.mean(axis=0), []
    here = InMemory(Rows(X, np.ones(1), NO_LABELS, center)).totals(requests())
    tables = [bg.open_table(make(X)) for make in (ragged, frame)]
    for n in (1, 2, 4):
        workers.scale(n)
        client.wait_for_workers(n)
        for table in tables:
            passes = Streamed(table, center, lambda done, total: told.append((done, total)))
            assert numbers(passes.totals(requests())) == numbers(here)
            assert told[-1] == (N, N)
    assert len({worker for has in client.who_has(tables[0].blocks).values() for worker in has}) > 1  # those who joined


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("make", [ragged, frame])
def test_a_fit_has_the_same_digits_on_a_cluster(X, streamed, make):
    same_fits(bg.fit_em(make(X), 3, rng=0, n_starts=4), bg.fit_em(streamed, 3, rng=0, n_starts=4))


@pytest.mark.usefixtures("client")
def test_rows_that_lack_values_give_the_same_digits_on_a_cluster(X, workers, tmp_path):
    holes = X.copy()
    holes[np.random.default_rng(2).random(X.shape) < 0.1] = np.nan
    np.save(tmp_path / "holes.npy", holes)
    workers.scale(2)
    one, other = (bg.select(source, 3, rng=0, n_starts=2) for source in (ragged(holes), tmp_path / "holes.npy"))
    same_fits(one.best("bic"), other.best("bic"))
    assert one.best("bic").missing == other.best("bic").missing
    np.testing.assert_array_equal(one.held_out.log_density, other.held_out.log_density)


@pytest.mark.usefixtures("client")
def test_a_choice_has_the_same_digits_on_a_cluster(X, streamed):
    one, other = (bg.select(source, (2, 3), rng=0, n_starts=3) for source in (ragged(X), streamed))
    for key, fit in one.fits.items():
        same_fits(fit, other.fits[key])
    np.testing.assert_array_equal(one.held_out.log_density, other.held_out.log_density)
    np.testing.assert_array_equal(one.held_out.se_of_gain, other.held_out.se_of_gain)


def test_a_worker_that_is_killed_changes_no_digit_of_a_fit(X, streamed, workers, client):
    workers.scale(2)
    client.wait_for_workers(2)
    killed = []

    def kill(*step):
        if step[0] == "pass 2" and not killed:
            killed.extend(client.run(os.getpid).values())
            os.kill(killed[0], signal.SIGKILL)

    fit = bg.fit_em(ragged(X), 3, rng=0, n_starts=4, progress=kill)
    assert killed[0] not in client.run(os.getpid).values()
    same_fits(fit, bg.fit_em(streamed, 3, rng=0, n_starts=4))


@pytest.fixture(scope="module")
def files(X, tmp_path_factory):
    """The rows as three files of Parquet, and the pattern of their names."""
    folder = tmp_path_factory.mktemp("files")
    for i, part in enumerate(np.array_split(X, [70_001, 200_000])):
        pd.DataFrame(part, columns=["a", "b"]).to_parquet(folder / f"{i}.parquet")
    return f"{folder}/*.parquet"


def test_files_that_workers_read_give_the_same_digits(X, streamed, files, client, monkeypatch):
    monkeypatch.setattr("bayesgmm.sources._KEPT_ROWS", 50_000)
    table = bg.open_table(files, client=client)
    assert [part.name for part in table.parts] == ["0.parquet", "1.parquet", "2.parquet"]
    np.testing.assert_array_equal(table.read(69_990, 200_010), X[69_990:200_010])
    same_fits(bg.fit_em(table, 3, rng=0, n_starts=4), bg.fit_em(streamed, 3, rng=0, n_starts=4))


@pytest.fixture(scope="module")
def draws(streamed):
    return bg.sample_posterior(streamed, bg.fit_em(streamed, 3, rng=0, n_starts=4), draws=20, chains=2, rng=0)


def written(assigned):
    found = {path.name: path.read_bytes() for path in assigned.directory.iterdir()}
    assert set(found) == {"part-00000.parquet", "part-00001.parquet", "part-00002.parquet", "_summary.json"}
    return {name: found[name] for name in assigned.files}


@pytest.fixture(scope="module")
def labelled(files, draws, tmp_path_factory):
    """The files that label the rows, written without a cluster."""
    return written(bg.assign_to_files(draws, files, tmp_path_factory.mktemp("labels"), n_draws=8))


def test_workers_write_the_same_bytes_and_what_they_have_written_stays(
    files, draws, labelled, workers, client, tmp_path, monkeypatch
):
    table = bg.open_table(files, client=client)
    monkeypatch.setattr(type(table), "read", None)  # no row travels here
    for n in (1, 2):
        workers.scale(n)
        client.wait_for_workers(n)
        told = []
        options = {"n_draws": 8, "progress": lambda *step: told.append(step)}  # noqa: B023
        assigned = bg.assign_to_files(draws, table, tmp_path / str(n), **options)
        assert written(assigned) == labelled
        assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
        assert told[-1] == ("rows assigned", N, N)
    (assigned.directory / "part-00001.parquet").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in assigned.directory.glob("part-*")}
    assert written(bg.assign_to_files(draws, table, assigned.directory, n_draws=8)) == labelled
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in assigned.directory.glob("part-*")}.items()


def test_workers_that_are_killed_change_no_byte_of_labels(files, draws, labelled, workers, client, tmp_path):
    workers.scale(2)
    client.wait_for_workers(2)
    killed = []

    def kill(_, done, total):
        if 0 < done < total and not killed:
            killed.extend(client.run(os.getpid).values())
            for process in killed:
                os.kill(process, signal.SIGKILL)

    table = bg.open_table(files, client=client)
    assigned = bg.assign_to_files(draws, table, tmp_path / "labels", n_draws=8, progress=kill)
    assert len(killed) == 2
    assert not {*killed} & {*client.run(os.getpid).values()}
    assert written(assigned) == labelled


def test_a_worker_that_cannot_write_is_named_and_what_it_has_written_elsewhere(
    files, draws, client, tmp_path, monkeypatch
):
    table = bg.open_table(files, client=client)
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.mkdir", lambda *args, **how: None)  # as if it were made on another disk
        with pytest.raises(bg.InputError, match=r"the worker at tcp://.* failed at a file: .*labels'; it must be able"):
            bg.assign_to_files(draws, table, tmp_path / "labels")
    monkeypatch.setattr(cluster.Kept, "each", lambda table, do, over, progress: [{"counts": [1], "doubtful": 0}] * 3)
    with pytest.raises(bg.InputError, match=r"part-00000\.parquet was written, but is not here: a worker has another"):
        bg.assign_to_files(draws, table, tmp_path / "labels")


def test_an_infinite_value_that_a_worker_finds_is_named(X, draws, client, tmp_path):
    spoilt = X.copy()
    spoilt[290_000, 1] = np.inf
    table = bg.open_table(ragged(spoilt))
    assert table.client is client
    with pytest.raises(
        bg.InputError, match=r"^row 154456 of partition 5 \(row 290000 in all\), column 'x1' is infinite"
    ):
        bg.assign_to_files(bg.posterior(draws).em, table, tmp_path / "labels")


def test_files_that_workers_cannot_find_are_named(tmp_path, X):
    with pytest.raises(bg.InputError, match=r"no file .*x\.npy where a worker is; workers must find"):
        sources._rows_of_file((tmp_path / "x.npy", None), 0, 1)
    with pytest.raises(bg.InputError, match="client is for files, which its workers read"):
        bg.open_table(ragged(X), client=object())


def test_a_cluster_of_this_machine_is_closed_again(files, streamed):
    with cluster.connected("local") as client:
        fit = bg.fit_em(bg.open_table(files, client=client), 3, rng=0, n_starts=4)
    assert client.status == "closed"
    same_fits(fit, bg.fit_em(streamed, 3, rng=0, n_starts=4))


def test_an_address_without_a_scheduler_is_named(monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", 0.1)
    with (
        pytest.raises(bg.InputError, match=r"no scheduler of Dask answers at tcp://127\.0\.0\.1:9"),
        cluster.connected("tcp://127.0.0.1:9"),
    ):
        pass


@pytest.mark.usefixtures("client")
def test_the_sample_depends_on_the_rows_alone(X, streamed):
    one = survey(bg.open_table(streamed), 500, seed=3)
    other = survey(bg.open_table(ragged(X)), 500, seed=3)
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("on", ["a cluster", "no cluster"])
def test_the_first_bad_value_is_named_by_its_partition_and_row(X, on, request):
    if on == "a cluster":
        request.getfixturevalue("client")
    spoilt = X.copy()
    spoilt[[65_600, 290_000], 1] = -np.inf, np.inf
    with pytest.raises(bg.InputError, match=r"^row 64 of partition 3 \(row 65600 in all\), column 'x1' is infinite"):
        bg.fit_em(ragged(spoilt), 2)


@pytest.mark.usefixtures("client")
def test_rows_on_a_cluster_can_be_read_and_keep_their_type(X):
    table = bg.open_table(ragged(X.astype(np.float32)))
    np.testing.assert_array_equal(table.read(65_530, 135_550), X[65_530:135_550])
    assert {block.result().dtype for block in table.blocks} == {np.dtype(np.float32)}


def test_partitions_of_unknown_length_are_counted(X):
    table = bg.open_table(ragged(X)[da.from_array(X[:, 0] > 0, chunks=(RAGGED,))])
    np.testing.assert_array_equal(table.read(0, 1000), X[X[:, 0] > 0][:1000])
    assert table.n_observations == (X[:, 0] > 0).sum()


def test_columns_of_a_dataframe_are_chosen(X):
    table = bg.open_table(frame(X), columns=["b"])
    assert table.features == ("b",)
    np.testing.assert_array_equal(table.read(10, 20), X[10:20, 1:])


def test_blocks_end_where_chunks_end_whatever_is_summed():
    for K, width, diagonal in product((1, 2, 3, 10, 100), (1, 2, 3, 10, 100), (False, True)):
        assert cluster.grain(width) % chunk_rows(K, width, diagonal) == 0
        assert cluster.grain(width) % SURVEY_ROWS == 0


def test_rows_stay_where_they_are_unless_a_worker_has_too_many():
    sizes = np.random.default_rng(0).integers(1, 100, size=200).tolist()
    threads = {"a": 2, "b": 2, "c": 1}
    fair = sum(sizes) / 5
    even = [("abcab"[i % 5],) for i in range(200)]
    lost_or_crowded = [("a",)] * 100 + [()] * 50 + [("gone",)] * 50
    for owners in (even, lost_or_crowded):
        groups = cluster.shared(sizes, owners, threads)
        assert sorted(i for group in groups.values() for i in group) == list(range(200))
        assert max(sum(sizes[i] for i in group) for group in groups.values()) <= 1.25 * fair + 100
    assert all(
        even[i] == (worker,) for (worker, _), group in cluster.shared(sizes, even, threads).items() for i in group
    )


def test_nothing_of_the_session_is_sent_to_workers(X, draws, client, tmp_path, monkeypatch):
    table, sent = bg.open_table(ragged(X)), []
    monkeypatch.setattr(
        client, "submit", lambda *args, submit=client.submit, **how: sent.append(args) or submit(*args, **how)
    )
    passes = Streamed(table, X.mean(axis=0), progress=lambda done, total: None)
    passes.totals(requests())
    bg.assign_to_files(draws, table, tmp_path, progress=lambda *step: None)
    modules = set()

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            modules.add(module.split(".")[0])
            return super().find_class(module, name)

    for args in sent:
        Reader(io.BytesIO(pickle.dumps([one for one in args if not isinstance(one, list)]))).load()
    assert modules <= {"bayesgmm", "numpy", "builtins", "distributed", "_codecs", "pathlib"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda X: frame(X)["a"], "Series is no table"),
        (lambda X: dask.bag.from_sequence([1, 2]), "Bag is no table"),
        (lambda X: da.zeros((3, 4, 5)), "the Dask array has 3 dimensions"),
        (lambda X: da.zeros((3, 4), dtype=complex), "the Dask array holds complex128, not numbers"),
        (lambda X: frame(X[:20]).assign(kind="u"), "column 'kind' of the DataFrame holds .*not numbers"),
        (lambda X: da.zeros((1, 2)), "the table has 1 rows"),
        (lambda X: da.ones((10, 2)), "column 'x0' is constant"),
    ],
)
def test_what_is_no_table_is_refused(X, source, message):
    with pytest.raises(bg.InputError, match=message):
        bg.fit_em(source(X), 1)
    with pytest.raises(bg.InputError, match="the DataFrame has no column 'c'; it has"):
        bg.open_table(frame(X[:20]), columns=["c"])
    with pytest.raises(bg.InputError, match="no column names to choose from"):
        bg.open_table(da.zeros((3, 4)), columns=["c"])
