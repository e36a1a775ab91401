"""What a command does with a network that it has: test it, or predict with it, and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_adv.callbacks import BestCheckpoint
from lightning_adv.commands.fit.predictions import PredictionTable
from lightning_adv.commands.fit.results import collect_results, describe_checkpoint, print_results, write_results
from lightning_adv.commands.shared.held_out import HeldOutCheck, best_validation
from lightning_adv.nn.weights.load import read_checkpoint


class ReportingCLI(LightningCLI):
    """A LightningCLI that tests what it has trained, and writes down what it measures and predicts."""

    _held_out: HeldOutCheck

    @property
    def _run_config(self) -> Any:
        """The configuration without the name of the subcommand around it."""
        return self.config if self.subcommand is None else self.config[self.subcommand]

    def _is_dry(self) -> bool:
        """Whether this is a ``fast_dev_run``, which writes nothing."""
        return bool(self._run_config["trainer"]["fast_dev_run"])

    def after_fit(self) -> None:
        """Test the best checkpoint, or the last weights where no validation chose one, and report it."""
        if self._is_dry() or self.trainer.interrupted:
            return
        best = next(callback for callback in self.trainer.checkpoint_callbacks if isinstance(callback, BestCheckpoint))
        if self._held_out.missing:
            rank_zero_info(f"Nothing was tested: {self._held_out.missing}. {best_validation(best)}")
            return
        checkpoint, weights = None, "last" if self.trainer.global_step else "untrained"
        if best.best_model_path and not Path(best.best_model_path).is_file():
            rank_zero_warn(f"{best.best_model_path} was removed while the run went on: the last weights are tested.")
        elif best.best_model_path:
            # Not by test's ckpt_path: weight averaging would put the weights before averaging in their place.
            content = read_checkpoint(best.best_model_path, argument="best_checkpoint")
            self.model.load_state_dict(content["state_dict"])
            checkpoint, weights = describe_checkpoint(best.best_model_path, content, self.trainer.log_dir), "best"
        self._report(self.trainer.test(self.model, datamodule=self.datamodule, verbose=False), checkpoint, weights)

    def test(self, **kwargs: Any) -> None:
        """Test and report a checkpoint."""
        tested = self.trainer.test(**kwargs | {"verbose": False})
        path, checkpoint = kwargs.get("ckpt_path"), None
        if path is not None:
            content = read_checkpoint(path, argument="ckpt_path")
            checkpoint = describe_checkpoint(path, content, self.trainer.log_dir)
        self._report(tested, checkpoint, "untrained" if checkpoint is None else "checkpoint")

    def predict(self, **kwargs: Any) -> None:
        """Write the class probabilities of the test images to ``predictions.csv`` in the run folder."""
        self.trainer.predict(**kwargs | {"return_predictions": False})
        for table in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(table, PredictionTable) and table.path is not None:
                print(f"{table.rows} predictions are in {table.path}")
            elif isinstance(table, PredictionTable) and not self._is_dry():
                print("Nothing was predicted: the data module has no image, or trainer.limit_predict_batches is 0.")

    def _report(
        self, tested: Sequence[Mapping[str, float]], checkpoint: Mapping[str, Any] | None, weights: str
    ) -> None:
        """Write and print the results.

        Args:
            tested: What ``trainer.test`` returned.
            checkpoint: The one whose weights were tested; None if they come from none.
            weights: Which weights they are: ``"best"``, ``"last"``, ``"untrained"`` or ``"checkpoint"``.
        """
        if self._is_dry():
            rank_zero_info("trainer.fast_dev_run runs a few batches: there are no results.")
            return
        folder = self.trainer.log_dir
        if not tested or "test/images" not in tested[0]:
            rank_zero_info(
                "Nothing was tested: the data module gives no test image, or trainer.limit_test_batches none."
            )
            return
        given = self._run_config
        tested_in = {"seed": given["seed_everything"], "checkpoint": checkpoint, "weights": weights, "given": given}
        results = collect_results(self.trainer, self.model, self.datamodule, tested[0], **tested_in)
        if self.trainer.is_global_zero:
            print_results(results, None if folder is None else Path(folder))  # first: the disk may be full
            if folder is not None:
                write_results(results, Path(folder))
