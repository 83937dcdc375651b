"""How the fits of a selection compare: what a page tells of them, and `summary.json` keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bayesgmm.em.grid import Key
from bayesgmm.selection.criteria import CRITERIA
from bayesgmm.selection.table import keys_of

if TYPE_CHECKING:
    import pandas as pd

    from bayesgmm.selection import Selection


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """How the fits of a selection compare.

    Attributes
    ----------
    table : DataFrame
        A row per fit, as in `Selection`.
    rankings : mapping to DataFrame
        For each criterion the fits from best to worst, as `Selection.ranking` returns them; the first one decides.
    chosen : (covariance, n_components)
        The fit to report.
    reason : str
        Why.
    rivals : sequence of (covariance, n_components)
        Fits that are not ruled out.
    sentences : sequence of str
        What the selection says.
    n_replicates : int
        Of the table; 0 if there are none.
    """

    table: pd.DataFrame
    rankings: Mapping[str, pd.DataFrame]
    chosen: Key
    reason: str
    rivals: tuple[Key, ...]
    sentences: tuple[str, ...]
    n_replicates: int

    @classmethod
    def of(cls, selection: Selection) -> Comparison:
        """What a selection tells."""
        best = selection.recommend()
        replicates = next((values for fits in selection.replicates.values() for values in fits.values()), ())
        return cls(
            selection.table,
            {name: selection.ranking(name) for name in selection.criteria},
            (best.covariance, best.n_components),
            best.reason,
            best.rivals,
            tuple(selection.text.splitlines()),
            len(replicates),
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Comparison:
        """The comparison of a record, whatever else is in that."""
        import pandas as pd

        return cls(
            pd.DataFrame(record["selection"]),
            {name: pd.DataFrame(lines).astype({"se": float}) for name, lines in record["rankings"].items()},
            (record["covariance"], record["n_components"]),
            record["reason"],
            tuple((covariance, K) for covariance, K in record["rivals"]),
            tuple(record["conclusions"]),
            record["n_replicates"],
        )

    @property
    def record(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "conclusions": list(self.sentences),
            "covariance": self.chosen[0],
            "n_components": self.chosen[1],
            "reason": self.reason,
            "rivals": [list(rival) for rival in self.rivals],
            "selection": self.table.to_dict("records"),
            "rankings": {name: ranking.to_dict("records") for name, ranking in self.rankings.items()},
            "n_replicates": self.n_replicates,
        }

    @property
    def best_first(self) -> dict[str, list[Key]]:
        """The fits from best to worst by each criterion."""
        return {name: keys_of(ranking) for name, ranking in self.rankings.items()}

    @property
    def frequencies(self) -> dict[str, pd.Series]:
        """How often each criterion that has replicates chose each number of components among them."""
        by_size = self.table.groupby("n_components")
        columns = {name: f"{name}_frequency" for name in CRITERIA}
        return {name: by_size[column].sum() for name, column in columns.items() if column in self.table}
