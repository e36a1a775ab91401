"""The picture of a run: accuracies, losses and learning rate over its epochs."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_warn

from lightning_adv.analysis.training_curves import plot_training_curves, salvage_metrics
from lightning_adv.core.figures import to_png
from lightning_adv.core.files import write_whole


class TrainingCurves(Callback):
    """Writes ``figures/training_curves.png`` into the run folder when training ends.

    The curves are read from the ``metrics.csv`` of the Trainer's CSVLogger; without that logger nothing is drawn. Of a
    file that is damaged, what can be read is drawn. A picture that cannot be drawn or written is a warning: the run has
    its test before it.

    Attributes:
        lost: Why the picture is missing, for the end of the run; None if it is not.
    """

    lost: str | None = None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the figure on the first process (a Lightning hook)."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]
        if not trainer.is_global_zero or not loggers:
            return
        loggers[0].save()
        metrics = Path(loggers[0].log_dir) / "metrics.csv"
        target = metrics.parent / "figures" / "training_curves.png"
        try:
            if metrics.is_file():
                _draw(metrics, target)
        except Exception as error:
            self.lost = f"{target} ({error})"
            rank_zero_warn(f"{target} is missing: {error!r}.")


def _draw(metrics: Path, target: Path) -> None:
    curves, problems = salvage_metrics(metrics)
    for problem in problems:
        rank_zero_warn(f"{metrics} is damaged, and {target.name} lacks what cannot be read: {problem}.")
    write_whole(target, to_png(plot_training_curves(curves), dpi=150))
