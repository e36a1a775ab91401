"""What a network withstands: attacks over norms and radii, sample by sample, with what one needs to believe it."""

from lightning_adv.core.shares import wilson_interval
from lightning_adv.core.threat_model import ThreatModel
from lightning_adv.evaluation.corruptions import CorruptionError, corrupt, corruption_errors, mce, relative_mce
from lightning_adv.evaluation.evaluate import evaluate
from lightning_adv.evaluation.figures import plot_accuracy_over_eps, plot_accuracy_over_steps
from lightning_adv.evaluation.options import CommonCorruptions, StepsCurve
from lightning_adv.evaluation.plan import Case, Plan, make_plan
from lightning_adv.evaluation.summary import Summary, summarise
from lightning_adv.evaluation.suspicion import Suspicion, find_suspicions
from lightning_adv.evaluation.transfer import TransferRate, commonly_correct, ensemble_rates, transfer_rates
from lightning_adv.evaluation.verdicts import ChunkVerdicts, evaluate_chunk

__all__ = [
    "Case", "ChunkVerdicts", "CommonCorruptions", "CorruptionError", "Plan", "StepsCurve", "Summary", "Suspicion",
    "ThreatModel", "TransferRate", "commonly_correct", "corrupt", "corruption_errors", "ensemble_rates", "evaluate",
    "evaluate_chunk", "find_suspicions", "make_plan", "mce", "plot_accuracy_over_eps", "plot_accuracy_over_steps",
    "relative_mce", "summarise", "transfer_rates", "wilson_interval",
]  # fmt: skip
