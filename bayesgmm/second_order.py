"""What rows add to the Hessian of the log-likelihood that EM's statistics do not tell: products of their scores.

Each component has coordinates of its own: the log of its weight, a shift of its mean in standard deviations, and an
upper triangular change E of its precision's factor, which is P (I + E). With z = P'(x - mean) the derivatives of its
log joint density at a row are T = (1, z, 1[i=j] - z_i z_j for i <= j), and those of the row's log-likelihood are
v = (r_1 T_1, ..., r_K T_K), where r are the responsibilities. The Hessian of the log-likelihood is (Louis 1982)

    sum_i sum_k r_k A_k + sum_i [blockdiag(r_k T_k T_k') - v v'].

The second derivatives A_k of the log joint densities are functions of EM's statistics. The rest is what is summed here,
by `src/products.hpp`.
"""

from __future__ import annotations

import numpy as np

from bayesgmm import native
from bayesgmm.expectation import Parameters, Pass, Rows, Totals
from bayesgmm.native import address


def _n_coordinates(D: int, diagonal: bool) -> int:
    """Coordinates of one component."""
    return 1 + D + (D if diagonal else D * (D + 1) // 2)


class SecondOrderTotals(Totals):
    """The totals of a pass with products of scores."""

    def __init__(self, K: int, D: int, diagonal: bool, scores: bool) -> None:
        self.m, self.diagonal = _n_coordinates(D, diagonal), diagonal
        super().__init__(K, D, (K * (K + 1) // 2 + K * scores) * self.m**2)

    @property
    def bend(self) -> np.ndarray:
        """Sum over the rows of blockdiag(r_k T_k T_k') - v v', (K m, K m)."""
        K, m = self.shape[0], self.m
        blocks = iter(self.further.reshape(-1, m, m))
        bend = np.empty((K, m, K, m))
        for k in range(K):
            for j in range(k):
                bend[k, :, j] = -next(blocks)
                bend[j, :, k] = bend[k, :, j].T
            bend[k, :, k] = next(blocks)
        return bend.reshape(K * m, K * m)

    @property
    def scores(self) -> np.ndarray:
        """Sum over the rows of v v' (K m, K m), where it was asked for."""
        K, m = self.shape[0], self.m
        scores = -self.bend.reshape(K, m, K, m)
        scores[np.arange(K), :, np.arange(K)] = self.further.reshape(-1, m, m)[-K:]
        return scores.reshape(K * m, K * m)


class SecondOrderPass(Pass):
    """A pass that sums products of scores as well, over complete and exact rows without labels or noise.

    Parameters
    ----------
    rows : Rows
    parameters : Parameters
    diagonal : bool
        Whether the coordinates are those of diagonal covariances.
    scores : bool
        Whether the sum of v v' is wanted too, for which rows count that certainly belong to a component.
    """

    def __init__(self, rows: Rows, parameters: Parameters, diagonal: bool, scores: bool) -> None:
        super().__init__(rows, parameters, diagonal)
        self.scores = scores

    def _of_range(self, start: int, stop: int, moments: bool) -> Totals:
        of_first_order = super()._of_range(start, stop, moments)
        totals = SecondOrderTotals(self.K, self.D, bool(self.mixture.diagonal), self.scores)
        n = totals.further.size
        totals.high[:-n], totals.low[:-n] = of_first_order.high, of_first_order.low
        into = n, address(totals.high[-n:]), address(totals.low[-n:])
        native.products(self.compiled, self.mixture, start, stop, self.chunk, self.scores, *into)
        return totals
