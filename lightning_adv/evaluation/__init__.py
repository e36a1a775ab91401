"""What a network withstands: attacks over norms and radii, sample by sample, with what one needs to believe it."""

from lightning_adv.evaluation.evaluate import evaluate
from lightning_adv.evaluation.options import CommonCorruptions, StepsCurve
from lightning_adv.evaluation.plan import Case, Plan, ThreatModel, make_plan
from lightning_adv.evaluation.summary import Summary, summarise
from lightning_adv.evaluation.verdicts import ChunkVerdicts, evaluate_chunk

__all__ = [
    "Case", "ChunkVerdicts", "CommonCorruptions", "Plan", "StepsCurve", "Summary", "ThreatModel", "evaluate",
    "evaluate_chunk", "make_plan", "summarise",
]  # fmt: skip
