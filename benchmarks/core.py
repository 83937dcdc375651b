"""Time of one EM iteration, and its share of the processor's multiply-adds, beside which it is measured.

On one thread, without acceleration: E-step and M-step. Counted are the multiply-adds of the distances and of the
statistics; their exponentials and logarithms take time, but count for nothing. The least of several times stands for
all, of the processor (other processes on the machine do not count) and measured in turns.
"""

from time import thread_time

import numpy as np

from bayesgmm import native
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em import ascent
from bayesgmm.em.climber import make_climber
from bayesgmm.em.initialize import moments_of_labels
from bayesgmm.expectation import NO_LABELS, Pass, Rows
from bayesgmm.observations import observations

TURNS = 5
CASES = [  # rows, features, components
    *((272, 2, 2), (100_000, 2, 3), (100_000, 5, 5), (100_000, 10, 10)),
    *((1_000, 10, 5), (30_000, 20, 10), (20_000, 50, 20)),
]


def seconds(task):
    start = thread_time()
    task()
    return thread_time() - start


def case(N, D, K, name):
    """A climb as a task, and how many iterations it has, but for a last pass that makes no statistics."""
    rng = np.random.default_rng(0)
    labels = rng.integers(K, size=N)
    X = rng.normal(size=(K, D))[labels] * 2 + rng.normal(size=(N, D))
    iterations = max(int(2e8 / (N * K * (D * (D + 4) + 10))), 20)
    model = CovarianceModel.named(name)
    climber, _ = make_climber(observations(X), model, K, tolerance=0.0, max_iterations=iterations)
    problem, _held = climber.problem.compiled()
    state = ascent.State(K, D, iterations)
    moments = moments_of_labels(X - climber.center, labels, K)
    rows = Pass(Rows(X, np.ones(1), NO_LABELS, climber.center), state.parameters, model.diagonal)
    outcomes = ascent.Outcomes(
        np.zeros(1, np.dtype(native.Progress)),
        moments[None],
        np.empty((1, K)),
        state.parameters.offsets[None],
        np.empty((1, K, D, D)),
    )

    def task():
        compiled = state.compiled, native.address(moments), 0, 1, outcomes.compiled()
        native.climb(rows.compiled, N, 0, model.diagonal, problem, *compiled)

    return task, iterations, rows


def main():
    rounds = 2_000_000
    print(f"level {native.level()} of {', '.join(native.levels())}")
    print(f"{'rows':>7} {'D':>3} {'K':>3}  {'model':5} {'us per iteration':>17} {'share of multiply-adds':>23}")
    for N, D, K in CASES:
        for name in ("VVV", "VVI"):
            task, iterations, _rows = case(N, D, K, name)
            task()
            times, peak = [], []
            for _ in range(TURNS):
                peak.append(native.multiply_adds(rounds) / seconds(lambda: native.multiply_adds(rounds)))
                times.append(seconds(task) / iterations)
            work = N * K * (D * (D + 3) if name == "VVV" else 4 * D)
            share = work / min(times) / max(peak)
            print(f"{N:7} {D:3} {K:3}  {name:5} {min(times) * 1e6:17.2f} {100 * share:22.0f}%")


if __name__ == "__main__":
    main()
