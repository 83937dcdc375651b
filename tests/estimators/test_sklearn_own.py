"""scikit-learn's own tests of its mixture, with our class in its place."""

import importlib.util
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import sklearn.mixture

from bayesgmm.sklearn import GaussianMixture

OF_A_PRIVATE_FUNCTION = "calls private functions of scikit-learn only, no estimator"
LEFT_OUT = {
    "test_suffstat_sk_full": OF_A_PRIVATE_FUNCTION,
    "test_suffstat_sk_tied": OF_A_PRIVATE_FUNCTION,
    "test_suffstat_sk_diag": OF_A_PRIVATE_FUNCTION,
    "test_gaussian_suffstat_sk_spherical": OF_A_PRIVATE_FUNCTION,
    "test_compute_log_det_cholesky": OF_A_PRIVATE_FUNCTION,
    "test_gaussian_mixture_log_probabilities": OF_A_PRIVATE_FUNCTION,
    "test_gaussian_mixture_precisions_init": "calls the private methods _set_parameters and _initialize",
    "test_gaussian_mixture_all_init_does_not_estimate_gaussian_parameters": (
        "counts calls of a private function of scikit-learn's M-step"
    ),
    "test_gaussian_mixture_array_api_compliance": "NumPy arrays only",
    "test_gaussian_mixture_raises_where_array_api_not_implemented": "NumPy arrays only",
}


def theirs_in(name):
    """The tests of one of scikit-learn's modules, which finds our class where it imports its own."""
    path = Path(sklearn.mixture.__file__).parent / "tests" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_of_scikit_learn", path)
    module = importlib.util.module_from_spec(spec)
    with mock.patch.object(sklearn.mixture, "GaussianMixture", GaussianMixture):
        spec.loader.exec_module(module)
    return {name: test for name, test in vars(module).items() if name.startswith("test_")}


THEIRS = theirs_in("test_gaussian_mixture") | theirs_in("test_mixture")
globals().update({name: test for name, test in THEIRS.items() if name not in LEFT_OUT})
pytestmark = [
    pytest.mark.filterwarnings("ignore::bayesgmm.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),  # as in scikit-learn's own runs
]


@pytest.fixture(params=[np.float64, np.float32])
def global_dtype(request):
    """Of the tables, in scikit-learn's tests."""
    return request.param


@pytest.fixture(params=[0, 42])
def global_random_seed(request):
    """Of the tables, in scikit-learn's tests."""
    return request.param


def test_what_is_left_out_is_there():
    assert not LEFT_OUT.keys() - THEIRS.keys()
