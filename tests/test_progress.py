"""The one way in which long computations tell how far they are."""

import numpy as np

import bayesgmm as bg
from bayesgmm.progress import of_stage, silent


def test_a_stage_is_named_for_its_steps():
    calls = []
    of_stage(lambda *call: calls.append(call), "EM fits")(1, 3)
    assert calls == [("EM fits", 1, 3)]


def test_nobody_needs_to_listen():
    assert of_stage(None, "EM fits")(1, 3) is None
    assert silent("EM fits", 1, 3) is None


def test_whatever_takes_long_tells_its_stage_up_to_the_end():
    X = bg.datasets.old_faithful()[:60]
    fit, quick = bg.fit_em(X, 2, rng=0), {"draws": 40, "tune": 50, "chains": 2}
    calls = {}

    def listener(name):
        calls[name] = []
        return lambda *call: calls[name].append(call)

    bg.fit_em(X, 2, n_starts=3, rng=0, progress=listener("EM climbs"))
    bg.bootstrap(X, fit, n_replicates=3, rng=0, progress=listener("bootstrap replicates"))
    bg.kfold(X, 1, n_folds=2, rng=0, **quick, progress=listener("folds"))
    for stage, told in calls.items():
        stages, done, totals = (list(part) for part in zip(*told, strict=True))
        assert set(stages) == {stage}
        assert done == sorted(done)
        assert done[-1] == totals[-1]
        assert np.ptp(totals) == 0
