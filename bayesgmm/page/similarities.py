"""Which rows belong together, as a small picture that a page can carry."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bayesgmm.clusters.similarity import posterior_similarity

if TYPE_CHECKING:
    from bayesgmm.bayes.posterior import Posterior
    from bayesgmm.clusters.assignment import Assignments

MOST_ROWS = 500


@dataclass(frozen=True, slots=True, eq=False)
class Similarities:
    """The matrix of all pairs of some rows, ordered by what they belong to.

    Attributes
    ----------
    picture : str
        As a URL that holds its own data.
    sizes : (K + 1,)
        How many of the rows belong to each group, and last to none, in the picture's order.
    n_rows : int
    inside, outside : float
        Mean probability of belonging together of two rows of the same group, and of two of different ones; NaN where
        there are no such pairs.
    """

    picture: str
    sizes: np.ndarray
    n_rows: int
    inside: float
    outside: float


def similarities(posterior: Posterior, a: Assignments) -> Similarities:
    """The matrix of at most 500 rows, evenly over those of each group."""
    order = np.lexsort((-a.label_probability, a.labels, a.labels < 0))
    shown = order[np.linspace(0, len(order) - 1, min(len(order), MOST_ROWS)).astype(int)]
    together = posterior_similarity(posterior, rows=shown, dtype=np.float32)
    labels = a.labels[shown]
    same = labels[:, None] == labels
    pairs = ~np.eye(len(shown), dtype=bool)
    return Similarities(
        picture=_picture(together),
        sizes=np.array([(labels == k).sum() for k in (*range(a.probabilities.shape[1]), -1)]),
        n_rows=len(shown),
        inside=_mean(together[same & pairs]),
        outside=_mean(together[~same]),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _picture(matrix: np.ndarray) -> str:
    """A matrix of numbers from 0 to 1 as a PNG of 256 colours, the palette of the other pictures."""
    from matplotlib import colormaps
    from PIL import Image

    image = Image.fromarray(np.round(255 * matrix).astype(np.uint8), mode="P")
    image.putpalette((colormaps["viridis"](np.arange(256))[:, :3] * 255).round().astype(np.uint8).tobytes())
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
