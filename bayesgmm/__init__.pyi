"""The public names, and where they come from; `__init__.py` reads this to load each when it is first used."""

from . import datasets as datasets, plots as plots
from .bayes.diagnosis import diagnose as diagnose
from .bayes.evidence import (
    Evidence as Evidence,
    EvidenceFault as EvidenceFault,
    EvidenceProblem as EvidenceProblem,
    log_evidence as log_evidence,
)
from .bayes.findings import Diagnosis as Diagnosis, Finding as Finding, Remedy as Remedy, Symptom as Symptom
from .bayes.kfold import KFold as KFold, kfold as kfold
from .bayes.loo import LOO as LOO, loo as loo
from .bayes.loo_repairs import Repair as Repair
from .bayes.model import build_model as build_model
from .bayes.parameters import parameter_table as parameter_table
from .bayes.posterior import (
    Labels as Labels,
    Posterior as Posterior,
    Sampling as Sampling,
    TableSource as TableSource,
    as_mixture as as_mixture,
    posterior as posterior,
)
from .bayes.priors import (
    LKJ as LKJ,
    Exponential as Exponential,
    HalfNormal as HalfNormal,
    HierarchicalInverseWishart as HierarchicalInverseWishart,
    InverseWishart as InverseWishart,
    LogNormal as LogNormal,
    NormalMeans as NormalMeans,
    Priors as Priors,
)
from .bayes.relabel import relabel as relabel
from .bayes.sample import sample_posterior as sample_posterior
from .bayes.verdict import Convergence as Convergence, Verdict as Verdict
from .clusters.assignment import Assignments as Assignments, assign as assign, filled_components as filled_components
from .clusters.imputation import Imputation as Imputation, impute as impute
from .clusters.merging import Merging as Merging, merge_components as merge_components
from .clusters.modes import Modes as Modes, number_of_modes as number_of_modes
from .clusters.partition import (
    CredibleBall as CredibleBall,
    Partition as Partition,
    credible_ball as credible_ball,
    partition as partition,
)
from .clusters.scores import (
    PartitionScores as PartitionScores,
    Score as Score,
    adjusted_rand as adjusted_rand,
    misclassification as misclassification,
    partition_scores as partition_scores,
    variation_of_information as variation_of_information,
)
from .clusters.shares import cluster_mixture as cluster_mixture
from .clusters.similarity import posterior_similarity as posterior_similarity
from .clusters.stream import AssignedFiles as AssignedFiles, assign_to_files as assign_to_files
from .covariance import CovarianceModel as CovarianceModel
from .em.bootstrap import (
    Bootstrap as Bootstrap,
    LikelihoodRatioTest as LikelihoodRatioTest,
    bootstrap as bootstrap,
    bootstrap_lrt as bootstrap_lrt,
)
from .em.fit import fit_em as fit_em
from .em.heldout import HeldOut as HeldOut
from .em.information import StandardErrors as StandardErrors
from .em.result import EMFit as EMFit, Maximum as Maximum, SearchEnd as SearchEnd, Start as Start, Status as Status
from .errors import (
    BayesGMMError as BayesGMMError,
    ConvergenceWarning as ConvergenceWarning,
    DegenerateFitError as DegenerateFitError,
    InputError as InputError,
    SamplingError as SamplingError,
)
from .mixture import GaussianMixture as GaussianMixture
from .noise import Noise as Noise
from .page import report as report
from .parts import Part as Part, Parts as Parts
from .selection import (
    FitOutcome as FitOutcome,
    FitState as FitState,
    Overfitted as Overfitted,
    PosteriorState as PosteriorState,
    Recommendation as Recommendation,
    Selection as Selection,
    select as select,
    stacking_weights as stacking_weights,
)
from .sources import open_table as open_table, random_rows as random_rows

__version__: str
