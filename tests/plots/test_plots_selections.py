"""What criteria say of fits, and what their posteriors predict."""

from dataclasses import replace

import numpy as np
import pytest
from pictures import black_lines, table, tick_names, words

import bayesgmm as bg
from bayesgmm import plots
from bayesgmm.covariance import NAMES
from bayesgmm.plots.selections import model_style


@pytest.mark.parametrize("criteria", [("bic",), ("icl", "aic"), ("bic", "icl", "cv")])
def test_criteria_name_their_contenders_and_mark_the_best(criteria, tmp_path):
    chosen = bg.select(table("elongated"), range(1, 5), ("full", "EVE", "VEE"), criteria, n_starts=4, rng=0, n_folds=4)
    figure = plots.criteria(chosen)
    figure.savefig(tmp_path / "criteria", format="png", dpi=40)
    assert figure.legends == []
    assert len(figure.axes) == len(criteria) + 1  # how often BIC or ICL chose each K
    for ax, name in zip(figure.axes, criteria, strict=False):
        best = chosen.best(name)
        assert f"{best.covariance_model.name}, K = {best.n_components}" in ax.get_title()
        assert best.covariance_model.name in [text.get_text() for text in ax.texts]
        ring = next(line for line in ax.lines if line.get_markersize() == 12)
        assert ring.get_xdata() == [best.n_components]
        assert ring.get_ydata() == [0]
        worst, best_shown = ax.get_ylim()
        assert worst > 0 > best_shown
    bars = [patch.get_height() for patch in figure.axes[-1].patches]
    assert sum(bars) == pytest.approx(sum(name in ("bic", "icl") for name in criteria))


def test_lines_are_how_far_a_fit_is_behind_the_best_and_only_contenders_have_colours():
    chosen = bg.select(table("iris"), (1, 2, 3), "all", ("bic",), n_starts=2, n_replicates=0, rng=0)
    (ax,) = plots.criteria(chosen).axes
    named = {text.get_text() for text in ax.texts}
    coloured = [line for line in ax.lines if line.get_color() not in ("0.85", "black")]
    assert 1 <= len(named) <= 4
    assert len(coloured) == len(named) - ("VVV" in named)
    ranking = chosen.ranking("bic")
    assert named <= set(ranking["covariance"].drop_duplicates()[:4])
    shown = np.concatenate([line.get_ydata() for line in ax.lines if line.get_markersize() != 12])
    assert set(np.round(ranking["behind"], 6)) <= set(np.round(shown, 6))


def test_predictions_mark_chains_that_did_not_converge(selected):
    _, selection = selected
    key = next(iter(selection.posterior_states))
    for convergence in (bg.Convergence.NOT_CONVERGED, bg.Convergence.CONVERGED):
        state = bg.PosteriorState(bg.Verdict(convergence, ""))
        states = dict.fromkeys(selection.posterior_states, bg.PosteriorState(bg.Verdict(bg.Convergence.CONVERGED, "")))
        figure = plots.predictions(replace(selection, posterior_states=states | {key: state}))
        marked = [name.partition("\n")[0] for name in tick_names(figure) if name.endswith("did not converge")]
        assert marked == ([] if state.verdict.good else [f"{key[0]}, K = {key[1]}"])


def test_a_covariance_model_has_a_look_of_its_own():
    looks = {tuple(sorted(model_style(name).items())) for name in NAMES}
    assert len(looks) == 14


def test_predictions_come_in_the_order_of_the_ranking(selected, tmp_path):
    _, selection = selected
    figure = plots.predictions(selection)
    figure.savefig(tmp_path / "predictions.png", dpi=40)
    assert "nats, ± 2 standard errors" in words(figure)
    labels = [name.partition("\n")[0] for name in tick_names(figure)]
    ranking = selection.ranking("loo")
    assert labels == [f"{row.covariance}, K = {row.n_components}" for row in ranking.itertuples()]


def test_the_average_is_the_density_with_stacking_weights(selected, tmp_path):
    X, selection = selected
    D = X.shape[1]
    figure = plots.averaged(X, selection)
    figure.savefig(tmp_path / "averaged.png", dpi=40)
    assert f"Predictive density, averaged with stacking weights{'; the first 2 of 4 features' * (D > 2)}" in words(
        figure
    )
    assert figure.axes[0].get_xlabel() == X.columns[0]
    assert figure.axes[0].get_legend() is None  # there its marker would read as a row
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    if D == 1:
        assert legend == ["rows", *(f"{model}, K = {K}" for model, K in selection.posteriors), "average"]
        (average,) = black_lines(figure)
        expected = np.exp(selection.log_prob(average.get_xdata()[:, None]))
        np.testing.assert_allclose(average.get_ydata(), expected)
        weights = selection.table.set_index(["covariance", "n_components"])["weight"]
        mixtures = figure.axes[0].lines[:-1]
        shares = [weights[key] for key in selection.posteriors]
        np.testing.assert_allclose(np.dot(shares, [line.get_ydata() for line in mixtures]), expected)
    else:
        assert legend == ["rows"]
        assert figure.axes[0].get_ylabel() == X.columns[1]
        np.testing.assert_array_equal(np.column_stack(figure.axes[0].lines[0].get_data()), X.iloc[:, :2])


def test_averages_and_predictions_need_loo():
    selection = bg.select(table("old_faithful"), 2, "tied", ("bic",), n_starts=4, n_replicates=0, rng=0)
    with pytest.raises(bg.InputError, match="'loo' is not in the table"):
        plots.predictions(selection)
    with pytest.raises(bg.InputError, match="give select criteria with 'loo'"):
        plots.averaged(table("old_faithful"), selection)
