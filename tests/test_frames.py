"""Laws of turned axes: their coordinates, their prior, and the density and gradient of the models that have them."""

import warnings

import numpy as np
import pytest
from oracles import covariance_prior, errors_allowed, seed
from scipy import integrate, stats
from scipy.special import betaln, logsumexp

import bayesgmm as bg
from bayesgmm.bayes import frames
from bayesgmm.bayes.density import Density
from bayesgmm.covariance import CovarianceModel
from bayesgmm.observations import observations

TURNED = ("EEV", "VEV", "EVE", "VVE")


def density_of(name, K, D, kind="hierarchical", turn=None):
    """A density of 40 rows, and coordinates drawn from the prior; all of it turned by an orthogonal matrix if given."""
    rng = np.random.default_rng(10 * K + D)
    turn = np.eye(D) if turn is None else turn
    X = rng.normal(size=(40, D)) @ rng.normal(size=(D, D))
    prior = covariance_prior(kind, turn.T @ np.cov(X.T) @ turn)
    priors = bg.Priors(1.0, bg.NormalMeans(np.zeros(D), covariance=4 * np.eye(D)), prior).for_components(K)
    density = Density(observations(X @ turn), np.zeros(D), priors, CovarianceModel.named(name))
    precisions = density.coordinates.prior_draws(3, rng)
    return density, np.concatenate([rng.normal(size=(3, density.n_dim - precisions.shape[1])), precisions], axis=1)


@pytest.mark.parametrize("name", TURNED)
@pytest.mark.parametrize("D", [2, 3, 4])
@pytest.mark.parametrize("K", [1, 2, 3])
def test_gradient_is_that_of_finite_differences(name, K, D):
    density, thetas = density_of(name, K, D, "hierarchical" if K == 2 else "inverse Wishart")
    h = 1e-6
    for theta in thetas:
        gradient = density(theta)[1].copy()
        numeric = [(density(theta + h * e)[0] - density(theta - h * e)[0]) / (2 * h) for e in np.eye(theta.size)]
        np.testing.assert_allclose(gradient, numeric, atol=1e-7 * max(1, np.abs(gradient).max()))


@pytest.mark.parametrize("name", TURNED)
def test_covariances_are_of_the_model(name):
    """Shared are, to rounding, the volume, the lengths of the axes relative to it, or the axes."""
    density, thetas = density_of(name, 3, 4)
    covariances = density.unpack(thetas).covariances
    volumes = np.linalg.slogdet(covariances)[1]
    shapes = np.log(np.linalg.eigvalsh(covariances)) - volumes[..., None] / 4
    commutes = covariances[:, 0] @ covariances[:, 1] - covariances[:, 1] @ covariances[:, 0]
    apart = np.abs(commutes).max() / np.abs(covariances).max() ** 2
    assert (np.ptp(volumes, axis=1).max() < 1e-8) == (name[0] == "E")
    assert (np.ptp(shapes, axis=1).max() < 1e-6) == (name[1] == "E")
    assert (apart < 1e-12) == (name[2] == "E")


@pytest.mark.parametrize("name", TURNED)
def test_the_length_of_columns_and_the_direction_of_axes_say_nothing(name):
    density, thetas = density_of(name, 2, 3)
    rng = np.random.default_rng(0)
    n = density.coordinates.layout.sizes[-1]
    packed = density.pack(density.unpack(thetas))
    heights = density.log_densities(packed)
    for _ in range(3):
        other = packed.copy()
        signs = rng.choice([-1.0, 1.0], (*other.shape[:1], *density.coordinates.layout.frame_shape))
        other[:, -n:] *= np.broadcast_to(signs[:, :, :1], signs.shape).reshape(len(other), n)
        np.testing.assert_allclose(density.log_densities(other), heights, rtol=1e-10)
        longer = density.coordinates.stretched(other, rng)
        np.testing.assert_allclose(density.unpack(longer).covariances, density.unpack(packed).covariances, rtol=1e-8)
        assert (density.log_densities(longer) < heights).all()


@pytest.mark.parametrize("name", TURNED)
@pytest.mark.parametrize("kind", ["inverse Wishart", "hierarchical"])
def test_turning_the_features_turns_the_posterior(name, kind):
    K, D = 2, 3
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(D, D)))[0]
    one, thetas = density_of(name, K, D, kind)
    other, _ = density_of(name, K, D, kind, turn)
    m = one.unpack(thetas)
    turned = bg.GaussianMixture(m.weights, m.means @ turn, turn.T @ m.covariances @ turn)
    heights = [density.log_densities(density.pack(mixture)) for density, mixture in ((one, m), (other, turned))]
    np.testing.assert_allclose(*heights, rtol=1e-9)


@pytest.mark.parametrize(("name", "untied"), [("EEV", "EEI"), ("VEV", "VEI"), ("EVE", "EVI"), ("VVE", "VVI")])
def test_along_the_features_the_prior_is_that_of_the_diagonal_model(name, untied):
    """At diagonal covariances the two differ by the frames' constant alone, where the scale matrix is diagonal."""
    K, D = 3, 3
    prior = bg.HierarchicalInverseWishart(D + 2.5, D + 1.5, np.diag([1.0, 4.0, 0.3]), 0.05)
    priors = bg.Priors(np.ones(K), bg.NormalMeans(np.zeros(D), np.ones(D)), prior)
    X = np.random.default_rng(0).normal(size=(20, D))
    turned, straight = (Density(observations(X), np.zeros(D), priors, CovarianceModel.named(n)) for n in (name, untied))
    m = priors.sample(5, K, untied, rng=0)
    difference = turned.log_densities(turned.pack(m)) - straight.log_densities(straight.pack(m))
    np.testing.assert_allclose(difference, 0, atol=1e-7)


@pytest.mark.parametrize("D", [2, 3, 4, 7])
def test_constant_of_frames_follows_from_normal_matrices(D):
    """Of a standard normal matrix R has chi-distributed and standard normal entries (Bartlett 1933)."""

    def expectation(distribution, center, least):
        def integrand(r):
            return distribution.pdf(r) * np.exp(0.5 * r**2 - 0.5 * ((r - center) / frames.SLACK) ** 2)

        return np.log(integrate.quad(integrand, least, center + 3, points=[center], epsabs=0, epsrel=1e-12)[0])

    columns = D - 1
    log_integral = D * columns / 2 * np.log(2 * np.pi)
    log_integral += sum(expectation(stats.chi(D - j), 1.0, 0.0) for j in range(columns))
    log_integral += columns * (columns - 1) / 2 * expectation(stats.norm, 0.0, -3.0)
    assert abs(frames.log_constant(D) + log_integral) < 1e-9


@pytest.mark.statistical
@pytest.mark.parametrize("D", [2, 3, 4])
def test_frames_are_drawn_as_their_density_says(D):
    """Axes are uniform; the entries of R have the moments of their densities."""
    rng, n = np.random.default_rng(seed()), 20_000
    Z = frames.drawn((n,), D, rng)
    axes = frames.axes_of(Z)
    R = np.einsum("sij,sik->sjk", axes[..., : D - 1], Z)
    assert np.abs(np.tril(R, -1)).max() < 1e-12
    assert (np.diagonal(R, axis1=1, axis2=2) > 0).all()
    numbers, expected = [axes.reshape(n, -1) ** 2], [np.full(D * D, 1 / D)]
    for j in range(D - 1):
        moments = [
            integrate.quad(
                lambda r, p=p, j=j: r ** (D - 1 - j + p) * np.exp(-0.5 * ((r - 1) / frames.SLACK) ** 2), 0, 3
            )[0]
            for p in (0, 1, 2)
        ]
        numbers.append(np.stack([R[:, j, j], R[:, j, j] ** 2], axis=1))
        expected.append(np.array(moments[1:]) / moments[0])
        numbers.append(R[:, :j, j] ** 2)
        expected.append(np.full(j, frames.SLACK**2))
    values, exact = np.concatenate(numbers, axis=1), np.concatenate(expected)
    off = np.abs(values.mean(axis=0) - exact) / (values.std(axis=0) / np.sqrt(n))
    assert off.max() < errors_allowed(comparisons=exact.size), off.round(1)


@pytest.mark.parametrize("D", [2, 3, 4])
def test_turns_go_there_and_back_and_have_the_density_of_uniform_orientations(D):
    """In the plane the angle is uniform; in general the density changes by the Jacobian between references."""
    rng = np.random.default_rng(0)
    one, other, axes = np.linalg.qr(rng.normal(size=(3, D, D)))[0]
    turns = frames.turns(axes, one)
    back = frames.turned(one, turns)
    np.testing.assert_allclose(back @ np.diag(np.sign((back * axes).sum(axis=0))), axes, atol=1e-12)
    if D == 2:
        np.testing.assert_allclose(frames.log_density_of_turns(turns, 2), -np.log(2 * np.pi))
    h = 1e-5 * np.eye(turns.size)
    J = (frames.turns(frames.turned(one, turns + h), other) - frames.turns(frames.turned(one, turns - h), other)) / 2e-5
    there = frames.log_density_of_turns(frames.turns(back, other), D) + np.linalg.slogdet(J)[1]
    np.testing.assert_allclose(frames.log_density_of_turns(turns, D), there, atol=1e-6)


def log_marginals(X, priors, covariances):
    """Log marginal likelihood (draws, K, 2^N) of each set of rows in one component, its mean integrated out."""
    N, D = X.shape
    sets = (np.arange(2**N)[:, None] >> np.arange(N)) & 1
    n = np.maximum(sets.sum(axis=1), 1)
    centers = sets @ X / n[:, None]
    scatter = np.einsum("sn,ni,nj->sij", sets, X, X) - n[:, None, None] * np.einsum("si,sj->sij", centers, centers)
    precisions, log_det = np.linalg.inv(covariances), np.linalg.slogdet(covariances)[1]
    value = -0.5 * (n - 1) * (D * np.log(2 * np.pi) + log_det[..., None]) - 0.5 * D * np.log(n)
    value = value - 0.5 * np.einsum("...ij,sij->...s", precisions, scatter)
    spread = covariances[..., None, :, :] / n[:, None, None] + np.linalg.inv(priors.means.precision)
    off = centers - priors.means.location
    distance = (off * np.linalg.solve(spread, np.broadcast_to(off, spread.shape[:-1])[..., None])[..., 0]).sum(axis=-1)
    value = value - 0.5 * (D * np.log(2 * np.pi) + np.linalg.slogdet(spread)[1] + distance)
    return np.where(sets.sum(axis=1) > 0, value, 0.0)


def enumerated(X, priors, name, n):
    """Log evidence with two components by the sum over all assignments, covariances drawn from the prior; its error."""
    N, (a, b) = len(X), priors.concentration
    counts = ((np.arange(2**N)[:, None] >> np.arange(N)) & 1).sum(axis=1)
    log_p = betaln(a + counts, b + N - counts) - betaln(a, b)
    covariances = priors.sample(n, 2, name, rng=seed(1)).covariances
    each = [log_marginals(X, priors, part) for part in np.array_split(covariances, max(n // 5000, 1))]
    logs = np.concatenate([logsumexp(log_p + part[:, 0] + part[:, 1, ::-1], axis=1) for part in each])
    likelihood = np.exp(logs - logs.max())
    return logs.max() + np.log(likelihood.mean()), likelihood.std() / likelihood.mean() / np.sqrt(n)


SOME = np.array([[-1.6, -0.9], [-0.7, -0.2], [0.2, 0.1], [1.3, 0.4], [2.0, 1.3], [0.4, -0.9]])


@pytest.mark.statistical
@pytest.mark.parametrize("name", TURNED)
@pytest.mark.parametrize("kind", ["inverse Wishart", "hierarchical"])
def test_evidence_of_two_components_equals_the_sum_over_all_assignments(name, kind):
    prior = covariance_prior(kind, np.array([[2.0, 0.5], [0.5, 1.0]]))
    priors = bg.Priors([1.5, 1.5], bg.NormalMeans([0.0, 0.0], [2.0, 1.0]), prior)
    fit = bg.fit_em(SOME, 2, name, priors=priors, rng=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.ConvergenceWarning)
        tree = bg.sample_posterior(SOME, fit, priors, rng=seed())
    evidence = bg.log_evidence(tree, rng=seed())
    exact, error = enumerated(SOME, priors, name, 40_000)
    assert evidence.log_copies == pytest.approx(np.log(2))
    for method in ("bridge", "thames"):
        value, se = evidence.estimates[method]
        assert se < 0.3, method
        assert abs(value - exact) < 1.5 * errors_allowed(comparisons=2) * np.hypot(se, error), (method, value, exact)


@pytest.mark.statistical
def test_evidence_of_one_component_equals_an_integral_over_the_angle():
    """Given the axes the two features turned to them are independent, and each mean's integral has a closed form."""
    priors = bg.Priors(1.0, bg.NormalMeans([0.0, 0.0], [2.0, 2.0]), bg.InverseWishart(5.0, [[1.0, 0.3], [0.3, 0.5]]))
    log_squares, angles = np.linspace(-16.0, 8.0, 801), np.pi * (np.arange(200) + 0.5) / 200
    squares, total = np.exp(log_squares), np.zeros(len(angles))
    log_prior = stats.chi2(4).logpdf(squares) + log_squares + np.log(log_squares[1] - log_squares[0])
    for axis in (np.stack([np.cos(angles), np.sin(angles)]), np.stack([-np.sin(angles), np.cos(angles)])):
        p = squares / np.einsum("ia,ij,ja->a", axis, priors.covariances.scale, axis)[:, None]
        x = SOME @ axis
        v = 1 + len(SOME) * p * 4
        distance = p * ((x**2).sum(axis=0)[:, None] - 4 * p * x.sum(axis=0)[:, None] ** 2 / v)
        log_likelihood = 0.5 * (len(SOME) * np.log(p / (2 * np.pi)) - np.log(v) - distance)
        total += logsumexp(log_prior + log_likelihood, axis=1)
    exact = logsumexp(total) - np.log(len(angles))
    for name in ("EEV", "VVE"):
        fit = bg.fit_em(SOME, 1, name, priors=priors, rng=0)
        evidence = bg.log_evidence(bg.sample_posterior(SOME, fit, priors, rng=seed()), rng=seed())
        value, se = evidence.estimates["bridge"]
        assert se < 0.1
        assert abs(value - exact) < 1.5 * errors_allowed(comparisons=2) * se, name
