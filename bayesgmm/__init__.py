"""Uncertainty-aware clustering with Gaussian mixtures: EM fits and their posterior, side by side."""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
