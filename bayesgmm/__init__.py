"""Uncertainty-aware clustering with Gaussian mixtures: EM fits and their posterior, side by side."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "errors": ("BayesGMMError", "InputError", "DegenerateFitError", "SamplingError", "ConvergenceWarning"),
    "mixture": ("GaussianMixture",),
    "covariance": ("CovarianceModel",),
    "em.fit": ("fit_em",),
    "em.result": ("EMFit", "Maximum", "Start", "Status"),
    "em.information": ("StandardErrors",),
    "em.bootstrap": ("Bootstrap", "LikelihoodRatioTest", "bootstrap", "bootstrap_lrt"),
    "bayes.priors": (
        "Priors",
        "NormalMeans",
        "InverseWishart",
        "HierarchicalInverseWishart",
        "LKJ",
        "HalfNormal",
        "LogNormal",
        "Exponential",
    ),
    "bayes.model": ("build_model",),
    "bayes.sample": ("sample_posterior",),
    "bayes.posterior": ("Labels", "Posterior", "Sampling", "as_mixture", "posterior"),
    "bayes.verdict": ("Convergence", "Verdict"),
    "bayes.relabel": ("relabel",),
    "bayes.findings": ("Diagnosis", "Finding", "Remedy", "Symptom"),
    "bayes.diagnosis": ("diagnose",),
    "bayes.evidence": ("Evidence", "EvidenceFault", "EvidenceProblem", "log_evidence"),
    "bayes.kfold": ("KFold", "kfold"),
    "bayes.loo": ("LOO", "Repair", "loo"),
    "bayes.parameters": ("parameter_table",),
    "selection": (
        "FitOutcome",
        "FitState",
        "Overfitted",
        "PosteriorState",
        "Recommendation",
        "Selection",
        "select",
        "stacking_weights",
    ),
    "clusters.assignment": ("Assignments", "assign", "filled_components"),
    "clusters.similarity": ("posterior_similarity",),
    "clusters.partition": ("Partition", "CredibleBall", "partition", "credible_ball"),
    "clusters.shares": ("cluster_mixture",),
    "clusters.merging": ("Merging", "merge_components"),
    "clusters.modes": ("Modes", "number_of_modes"),
    "clusters.scores": (
        "PartitionScores",
        "Score",
        "adjusted_rand",
        "misclassification",
        "partition_scores",
        "variation_of_information",
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = ("datasets", "plots")
__all__ = [*_HOME, *_MODULES]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
