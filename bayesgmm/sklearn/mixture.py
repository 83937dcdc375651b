"""`GaussianMixture`: EM with the parameters, attributes and methods of scikit-learn's class."""

from __future__ import annotations

import math
import warnings
from numbers import Real
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning as NotConverged
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.climber import MAX_ITERATIONS, TOLERANCE, Climber, make_climber
from bayesgmm.em.fit import enough_rows, fit_by_plan
from bayesgmm.em.result import EMFit, Status
from bayesgmm.em.search import Plan
from bayesgmm.errors import ConvergenceWarning, DegenerateFitError, InputError
from bayesgmm.observations import observations, positive_integer
from bayesgmm.sklearn.estimator import MixtureEstimator, check_noise, labels_of
from bayesgmm.sklearn.shapes import check_means, check_precisions, check_weights, shaped
from bayesgmm.sklearn.starts import (
    PORTFOLIO,
    GivenParts,
    candidates,
    contenders,
    iterations_before_collapse,
    share_of_clusters,
)

_INIT_PARAMS = (PORTFOLIO, "kmeans", "k-means++", "random", "random_from_data")
_REG_COVAR = 1e-6  # of a column's variance; of a constant column, the variance itself
_NOT_CONVERGED = (  # scikit-learn's texts
    "Best performing initialization did not converge. Try different init parameters, or increase max_iter, tol, or "
    "check for degenerate data."
)
_ILL_DEFINED = (
    "Fitting the mixture model failed because some components have ill-defined empirical covariance (for instance "
    "caused by singleton or collapsed samples). Try to decrease the number of components, increase reg_covar, or scale "
    "the input data."
)


class GaussianMixture(MixtureEstimator):
    """Gaussian mixture fitted by EM, in place of ``sklearn.mixture.GaussianMixture``.

    Parameters
    ----------
    n_components : int
        K >= 1.
    covariance_type : str
        "full", "tied", "diag", "spherical", or one of the 14 three-letter names.
    tol : float, optional
        EM has converged when further iterations would gain less, by its own estimate: less than 1e-6 nats in total by
        default; with a number, less than ``tol`` nats a row. (In scikit-learn ``tol`` is compared with the last
        iteration's gain, which is small long before the maximum where EM is slow.)
    reg_covar : float, optional
        Variance that is added to every feature of every covariance; by default a millionth of the column's own. See
        `bayesgmm.fit_em`.
    max_iter : int
        Iterations of a climb. With 30 or fewer, the start is the one that leads after 30.
    n_init : int
        Starts. The portfolio has at least 20, which cost little.
    init_params : {"portfolio", "kmeans", "k-means++", "random", "random_from_data"}
        The portfolio of `bayesgmm.fit_em`, or scikit-learn's ways with exactly ``n_init`` starts.
    weights_init : (K,), optional
    means_init : (K, D), optional
    precisions_init : optional
        In the shape of ``precisions_``. Each replaces that part of every start, and the components keep this order;
        without any of the three they are ordered by their means in the first column. The weights sum to one with noise,
        too: they are those among the components.
    noise : bool or Noise
        Whether rows may belong to no component: True for a `bayesgmm.Noise`, uniform over the box of the columns'
        ranges, or another one. Such rows have the label -1, as in scikit-learn's ``DBSCAN`` and ``HDBSCAN``.
    random_state : int, RandomState or None
    warm_start : bool
        Whether ``fit`` goes on from where the last one ended. The first start is chosen by its short run, and only that
        one climbs.
    verbose : int
        1 prints how each start ended, 2 also the objective of every ``verbose_interval``-th iteration of the best.
    verbose_interval : int

    Attributes
    ----------
    weights_ : (K,)
        They sum to one, or with noise to ``1 - noise_weight_``.
    noise_weight_ : float
        Share of rows that belong to no component; zero without noise.
    means_ : (K, D)
    covariances_, precisions_, precisions_cholesky_ : array
        (K,) for "spherical", (K, D) for "diag", (D, D) for "tied", otherwise (K, D, D), as in scikit-learn. These
        three, ``weights_`` and ``means_`` have the type of the table, float32 or float64.
    converged_ : bool
    n_iter_ : int
        Iterations of the best climb.
    lower_bound_ : float
        What EM maximised, at the returned parameters, in nats a row. With ``reg_covar`` this is the likelihood of rows
        that count as blobs, which lies a little below ``score(X)``; with ``reg_covar=0`` it is ``score(X)``.
    lower_bounds_ : (n,)
        The same after each of the n iterations; it never falls.
    labels_ : (N,)
        The most probable component of each row, -1 where noise is more probable.
    n_features_in_ : int
    feature_names_in_ : (D,)
        Where the table has names.
    mixture_ : bayesgmm.GaussianMixture
        The same mixture with all its methods: ``marginal``, ``conditional``, ``tail_probability``, ...
    em_ : bayesgmm.EMFit
        The fit with all its starts, maxima and doubts.

    See Also
    --------
    GaussianMixturePosterior : with the posterior's uncertainty.
    bayesgmm.fit_em : known labels, fixed parts and priors.

    Notes
    -----
    Rows that no maximum-likelihood fit exists for, such as a constant column in one fold, as many components as rows or
    fewer distinct rows than components, are fitted as scikit-learn does, thanks to ``reg_covar``, with a warning.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> from bayesgmm.sklearn import GaussianMixture
    >>> gm = GaussianMixture(n_components=2, random_state=0).fit(bg.datasets.old_faithful().to_numpy())
    >>> gm.means_.round(1)
    array([[ 2. , 54.5],
           [ 4.3, 80. ]])
    >>> gm.predict([[2.0, 50.0], [4.5, 80.0]])
    array([0, 1])
    """

    _path: np.ndarray  # the last values of the objective, which a warm start goes on from

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float | None = None,
        reg_covar: float | None = None,
        max_iter: int = MAX_ITERATIONS,
        n_init: int = 1,
        init_params: str = PORTFOLIO,
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        noise: Any = False,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.noise = noise
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> GaussianMixture:
        """Fit by EM.

        Parameters
        ----------
        X : (N, D) table
            NaN where a value is missing: such values are integrated over, here and in the other methods.
        y : ignored
        sample_weight : (N,), optional
            Non-negative; a whole number counts a row that often.

        Raises
        ------
        ValueError
            Naming the parameter, row or column that cannot be used; or, with ``reg_covar=0``, if a component collapses.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the best climb ended at ``max_iter``.
        bayesgmm.ConvergenceWarning
            If the fit is doubtful: see `bayesgmm.fit_em`, and the Notes.
        """
        self._check_parameters()
        X = self._rows_to_fit(X)
        if len(X) < self.n_components:
            raise ValueError(
                f"Expected n_samples >= n_components but got n_components = {self.n_components}, n_samples = {len(X)}"
            )
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        climber, spread, refusal = self._climber(X, weight)
        em = self._climb(climber, spread)
        self._keep(em, climber, X)
        if self.verbose:
            self._print(em)
        if not self.converged_ and self.max_iter > 0:
            warnings.warn(_NOT_CONVERGED, NotConverged, stacklevel=2)
        nevertheless = (f"{refusal}: fitted nevertheless, since reg_covar keeps components from collapsing",)
        if doubts := (nevertheless if refusal else ()) + em.doubts:
            warnings.warn("; ".join(doubts), ConvergenceWarning, stacklevel=2)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability (N, K) of each component given the row; rows sum to one, or to what noise leaves of it."""
        X = self._rows(X)
        return self.mixture_.responsibilities(X).astype(X.dtype, copy=False)

    def score_samples(self, X: Any) -> np.ndarray:
        """Log density (N,) of each row, in nats."""
        X = self._rows(X)
        return self.mixture_.log_prob(X).astype(X.dtype, copy=False)

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draw rows from the mixture, one component's after the other's.

        Parameters
        ----------
        n_samples : int

        Returns
        -------
        X : (n_samples, D)
        y : (n_samples,)
            The components that the rows came from, -1 for noise.
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples} . The sampling requires at least one sample.")
        X, labels = self.mixture_.sample(n_samples, rng=self._seed())
        order = np.argsort(labels, kind="stable")
        return X[order], labels[order]

    def bic(self, X: Any, sample_weight: Any = None) -> float:
        """Bayesian information criterion of the rows under this mixture; smaller is better."""
        log_likelihood, total_weight = self._log_likelihood(X, sample_weight)
        return -2 * log_likelihood + self._n_parameters() * math.log(total_weight)

    def aic(self, X: Any, sample_weight: Any = None) -> float:
        """Akaike's information criterion of the rows under this mixture; smaller is better."""
        return -2 * self._log_likelihood(X, sample_weight)[0] + 2 * self._n_parameters()

    def _log_likelihood(self, X: Any, sample_weight: Any) -> tuple[float, float]:
        """Log-likelihood of the rows, in nats, and their total weight."""
        log_prob = self.score_samples(X).astype(np.float64)
        weight = _check_sample_weight(sample_weight, log_prob, dtype=np.float64)  # ones where there is none
        return float(log_prob @ weight), float(weight.sum())

    def _n_parameters(self) -> int:
        """Number of free parameters, under the name that scikit-learn's own classes have for it."""
        return self.em_.n_parameters

    def _check_parameters(self) -> None:
        """Refuse parameters that cannot be used, by their names; those to start from are checked with the table."""
        positive_integer(self.n_components, "n_components")
        positive_integer(self.n_init, "n_init")
        positive_integer(self.max_iter, "max_iter", least=0)
        positive_integer(self.verbose_interval, "verbose_interval")
        CovarianceModel.named(self.covariance_type)
        check_noise(self.noise)
        if self.init_params not in _INIT_PARAMS:
            raise InputError(f"init_params must be one of {', '.join(_INIT_PARAMS)}, not {self.init_params!r}")
        for name in ("tol", "reg_covar"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Real) and 0 <= float(value) < math.inf):
                raise InputError(f"{name} must be None or a finite number of at least 0, not {value!r}")

    def _climber(self, X: np.ndarray, weight: np.ndarray | None) -> tuple[Climber, np.ndarray, str]:
        """The climber of the rows, their covariance, and why no maximum of the likelihood exists, where none does."""
        K, model = self.n_components, CovarianceModel.named(self.covariance_type).for_features(X.shape[1])
        named, row_variance, refusal = self._named(X), self._row_variance(X, weight), ""
        try:
            table = observations(named, weight, noise=self.noise)
            enough_rows(table, K)
            make_climber(table, model, K)
        except InputError as error:
            if not row_variance.all():
                raise InputError(f"{_ILL_DEFINED} ({error})") from error
            table, refusal = observations(named, weight, noise=self.noise, may_be_constant=True), str(error)
        tolerance = TOLERANCE if self.tol is None else float(self.tol) * table.total_weight
        climber, spread = make_climber(table, model, K, row_variance=row_variance, tolerance=tolerance)
        return climber, spread, refusal

    def _row_variance(self, X: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        """Variance (D,) that is added to each feature of the covariances."""
        if self.reg_covar is not None:
            return np.full(X.shape[1], float(self.reg_covar))
        if weight is not None:
            X, weight = X[weight > 0], weight[weight > 0]
        values = np.ma.masked_invalid(X.astype(np.float64))
        with np.errstate(over="ignore"):  # entries so large are refused with the table
            deviations = values - np.ma.average(values, axis=0, weights=weight)
            variance = np.ma.average(deviations**2, axis=0, weights=weight)
        return _REG_COVAR * np.ma.filled(np.ma.where(np.ma.ptp(values, axis=0) > 0, variance, 1.0), 1.0)

    def _climb(self, climber: Climber, spread: np.ndarray) -> EMFit:
        """The best fit from the starts that the parameters ask for."""
        random_state, given = check_random_state(self.random_state), self._given_parts(climber)
        rng = np.random.default_rng(random_state.randint(2**31 - 1))
        starts = candidates(self.init_params, self.n_init, climber, spread, given, random_state)
        starts = contenders(climber, starts, self.max_iter, self.warm_start, rng)

        def fit(max_iterations: int) -> EMFit:
            constraints = ("reg_covar",) if climber.problem.row_variance.any() else ()
            shorter = climber.limited(max_iterations)
            return fit_by_plan(shorter, Plan(starts), rng, constraints=constraints, as_started=given.any)

        try:
            return fit(self.max_iter)
        except DegenerateFitError as error:
            if given.all and (sound := iterations_before_collapse(climber.limited(self.max_iter), starts[0][1])) >= 0:
                return fit(sound)
            raise InputError(f"{_ILL_DEFINED} ({error})") from error

    def _given_parts(self, climber: Climber) -> GivenParts:
        """What components start from: where the last fit ended, or whatever parts the user gave."""
        K, D = self.n_components, climber.table.n_features
        of_clusters = share_of_clusters(climber)
        if self.warm_start and hasattr(self, "mixture_"):
            last = self.mixture_
            if last.means.shape != (K, D):
                raise InputError(
                    f"warm_start cannot go on with {K} components and {D} columns from a fit with "
                    f"{last.n_components} and {last.n_features}; set warm_start=False"
                )
            as_before = (last.noise_weight is None) == (climber.table.noise is None)
            last_weights = last.weights if as_before else last.clusters.weights * of_clusters
            return GivenParts(last_weights, last.means, last.covariances)
        weights, means, precisions = self.weights_init, self.means_init, self.precisions_init
        return GivenParts(
            weights=None if weights is None else check_weights(weights, K) * of_clusters,
            means=None if means is None else check_means(means, K, D),
            covariances=None if precisions is None else check_precisions(precisions, self.covariance_type, K, D),
        )

    def _keep(self, em: EMFit, climber: Climber, X: np.ndarray) -> None:
        """Set the attributes of a fit."""
        path = em.log_likelihood_path
        goes_on = self.warm_start and hasattr(self, "_path") and math.isclose(path[0], self._path[-1], rel_tol=1e-9)
        self._path = np.concatenate((self._path[:-1] if goes_on else [], path))[-3:]
        left = gain_left(self._path) if goes_on else math.inf
        self.converged_ = em.status is Status.CONVERGED or left < climber.problem.tolerance
        self.em_, self.mixture_ = em, em.mixture
        self.n_iter_ = em.n_iterations
        self.lower_bounds_ = path[1:] / em.total_weight
        self.lower_bound_ = float(path[-1] / em.total_weight)
        P, kind = em.mixture.precisions_cholesky, self.covariance_type
        self.weights_ = em.mixture.weights.astype(X.dtype)
        self.noise_weight_ = float(em.mixture.noise_weight or 0.0)
        self.means_ = em.mixture.means.astype(X.dtype)
        self.covariances_ = shaped(em.mixture.covariances, kind).astype(X.dtype)
        self.precisions_cholesky_ = shaped(P, kind).astype(X.dtype)
        self.precisions_ = shaped(P @ np.swapaxes(P, 1, 2), kind).astype(X.dtype)
        self._n_features_out = em.n_components
        self.labels_ = labels_of(em.mixture.responsibilities(X).astype(X.dtype))

    def _print(self, em: EMFit) -> None:
        """How each start ended, and with ``verbose`` above 1 the best climb's path."""
        for i, start in enumerate(em.starts):
            print(f"Initialization {i} ({start.kind}): {start.status.value}, {start.n_iterations} iterations")
        if self.verbose > 1:
            for n in range(0, len(em.log_likelihood_path), self.verbose_interval):
                print(f"  Iteration {n}\t lower bound {em.log_likelihood_path[n] / em.total_weight:.5f}")


def gain_left(path: np.ndarray) -> float:
    """What further plain iterations would gain, by Aitken's extrapolation of a path's last two gains, in nats."""
    if len(path) < 3:
        return math.inf
    before, gain = np.diff(path[-3:])
    if gain <= 0:
        return 0.0
    return max(gain, gain**2 / (before - gain)) if before > gain else math.inf
