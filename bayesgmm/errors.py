"""Every exception and warning class of the package. Messages say what was wrong, where, and what to do."""


class BayesGMMError(Exception):
    """Base of all errors raised on purpose by this package."""


class InputError(BayesGMMError, ValueError):
    """A table or an argument that cannot be used; the message names the row, column or argument."""


class DegenerateFitError(BayesGMMError, RuntimeError):
    """Every start of a fit ended with a component collapsed onto too few distinct rows."""


class SamplingError(BayesGMMError, RuntimeError):
    """The sampler ended before it had drawn anything to return."""


class ConvergenceWarning(UserWarning):
    """A result that was returned although its computation did not finish; the message says how far it got."""
