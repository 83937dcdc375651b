"""What ships with the package is what its documentation says."""

import hashlib
from importlib.resources import files

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

import bayesgmm as bg
from bayesgmm import datasets

SHAPES = {"old_faithful": (272, 2), "galaxies": (82, 1), "iris": (150, 4), "elongated": (300, 2)}
CHECKSUMS = {
    "old_faithful": "2da9ef67231ab7542d2ec3e5a741a8d53ada92a24103195ce7d1f9b8e36a986d",
    "galaxies": "e4d576ea65973ae036e66fd9ab14624d613e2dc8ea9ecbce7290c2b1327b5add",
    "iris": "67e564ae384078bdbb7df81c8b9afa5fe8329154bbdf4310d5b60f53c3b7c26b",
    "elongated": "404bc977e2c2a84951d9f1eb07da82745bdd2b64401c3e64772384ef4278c4d6",
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_files_are_the_documented_variants(name):
    content = (files(datasets) / f"{name}.csv").read_bytes()
    assert hashlib.sha256(content).hexdigest() == CHECKSUMS[name]


@pytest.mark.parametrize(("name", "shape"), SHAPES.items())
def test_a_table_holds_its_numeric_features_alone(name, shape):
    table = getattr(datasets, name)()
    assert table.shape == shape
    assert all(dtype.kind in "fi" for dtype in table.dtypes)
    assert np.isfinite(table.to_numpy()).all()


@pytest.mark.parametrize("name", ["iris", "elongated"])
def test_known_classes_follow_the_rows(name):
    classes = datasets.known_classes(name)
    assert len(classes) == SHAPES[name][0]
    assert classes.nunique() == 3


def test_a_table_without_classes_says_so():
    with pytest.raises(bg.InputError, match="'galaxies'"):
        datasets.known_classes("galaxies")


def test_elongated_clusters_defeat_k_means_but_not_a_mixture():
    X, classes = datasets.elongated(), datasets.known_classes("elongated")
    cut_across = KMeans(3, n_init=10, random_state=0).fit_predict(X)
    followed = bg.fit_em(X, 3, rng=0).mixture.predict(X)
    assert adjusted_rand_score(classes, cut_across) < 0.1
    assert adjusted_rand_score(classes, followed) > 0.9
