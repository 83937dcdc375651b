"""Four small tables that ship with the package, as `pandas.DataFrame` of features, and the classes of two."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from bayesgmm.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["elongated", "galaxies", "iris", "known_classes", "old_faithful"]
_CLASS = ".class"


def old_faithful() -> pd.DataFrame:
    """Eruptions of the Old Faithful geyser, (272, 2): two clear groups, short and long.

    ``eruptions`` is the duration of an eruption and ``waiting`` the time until the next one, both in minutes.

    Source: Azzalini & Bowman (1990), Applied Statistics 39, 357-365; the variant of R's ``faithful``.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> bg.datasets.old_faithful().shape
    (272, 2)
    """
    return _features("old_faithful")


def galaxies() -> pd.DataFrame:
    """Velocities of galaxies in the Corona Borealis region, (82, 1): how many groups there are is disputed.

    ``velocity`` is the speed of recession in 1000 km/s.

    Source: Postman, Huchra & Geller (1986), Astronomical Journal 92, 1238-1247; Roeder (1990), Journal of
    the American Statistical Association 85, 617-624. Three variants circulate; this is the one of R's package
    MASS, whose 78th value is 26.690 where Roeder has 26.960.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> float(bg.datasets.galaxies()["velocity"].median())
    20.8335
    """
    return _features("galaxies")


def iris() -> pd.DataFrame:
    """Lengths and widths of iris flowers, (150, 4): 50 of each of three species, of which two overlap.

    ``Sepal.Length``, ``Sepal.Width``, ``Petal.Length`` and ``Petal.Width`` are in centimetres. The species
    are ``known_classes("iris")``.

    Source: Anderson (1935), Bulletin of the American Iris Society 59, 2-5; Fisher (1936), Annals of Eugenics
    7, 179-188; the variant of R's ``iris``.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> list(bg.datasets.iris().columns)
    ['Sepal.Length', 'Sepal.Width', 'Petal.Length', 'Petal.Width']
    """
    return _features("iris")


def elongated() -> pd.DataFrame:
    """Three long, thin, parallel clusters that touch, (300, 2): k-means cuts across, a mixture follows them.

    ``x`` and ``y`` have no units. The clusters that the rows came from are ``known_classes("elongated")``.

    Source: synthetic, by the recipe below.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesgmm as bg
    >>> rng = np.random.default_rng(0)
    >>> stripe = np.repeat([-1, 0, 1], [120, 100, 80])
    >>> along, across = 3.0 * rng.standard_normal(300), 0.45 * rng.standard_normal(300) + 1.8 * stripe
    >>> table = np.column_stack([along - across, along + across]) / np.sqrt(2)
    >>> np.allclose(table, bg.datasets.elongated(), atol=0.0006)
    True
    """
    return _features("elongated")


def known_classes(name: str) -> pd.Series:
    """The class that each row is known to belong to, (N,) of text, in the order of the table's rows.

    Parameters
    ----------
    name : {"iris", "elongated"}

    Raises
    ------
    InputError
        For a table without known classes.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> bg.datasets.known_classes("iris").unique().tolist()
    ['setosa', 'versicolor', 'virginica']
    """
    if name not in ("iris", "elongated"):
        raise InputError(f"no classes are known for {name!r}; they are for 'iris' and 'elongated'")
    return _read(name)[_CLASS].rename("class")


def _features(name: str) -> pd.DataFrame:
    return _read(name).drop(columns=_CLASS, errors="ignore")


def _read(name: str) -> pd.DataFrame:
    import pandas as pd

    with (files(__name__) / f"{name}.csv").open("rb") as file:
        return pd.read_csv(file)
