"""Every exception and warning class of the package; messages say what was wrong, where, and what to do."""


class BayesGMMError(Exception):
    """Base of all errors that this package raises on purpose.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> issubclass(bg.InputError, bg.BayesGMMError)
    True
    """


class InputError(BayesGMMError, ValueError):
    """A table or an argument cannot be used; the message names the row, column or argument.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> try:
    ...     bg.fit_em([[1.0, 2.0], [3.0, float("inf")]], 1)
    ... except bg.InputError as error:
    ...     print(error)
    row 1, column 'x1' is infinite; drop these rows or fill them in (rows count from 0)
    """


class DegenerateFitError(BayesGMMError, RuntimeError):
    """In every start of a fit a component collapsed onto too few distinct rows.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> try:
    ...     bg.fit_em([[0.0], [0.1], [5.0], [5.0]], 2, starts=[[0, 0, 1, 1]])
    ... except bg.DegenerateFitError as error:
    ...     print(str(error)[:73])
    all 1 starts collapsed; in the first, component 1 collapsed with 2.00 eff
    """


class SamplingError(BayesGMMError, RuntimeError):
    """The sampler ended before it had any draws to return.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> issubclass(bg.SamplingError, RuntimeError)
    True
    """


class ConvergenceWarning(UserWarning):
    """A result is returned although it is doubtful, for example because the chains disagree; the message says why.

    Examples
    --------
    >>> import warnings
    >>> import bayesgmm as bg
    >>> X = [[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [1e6]]
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     fit = bg.fit_em(X, 2, "tied", rng=0)
    >>> print(str(caught[0].message)[:36])
    component 1 holds 1.0 effective rows
    """
