"""check_observer finds each broken promise, and passes an observer that keeps them all."""

import random

import numpy as np
import pytest
import torch

from lightning_adv.callbacks import Observer, Record
from lightning_adv.testing import check_observer


class Norms(Observer):
    """Keeps every promise."""

    needs = ("network",)

    def observe(self, trainer, module):
        for name, weight in module.network.named_parameters():
            yield Record(name, "", "norm", weight.norm())
        yield Record("", "", "step", trainer.global_step)


@pytest.mark.slow
def test_one_that_keeps_them():
    observer = Norms(every_n_steps=3)
    check_observer(observer)
    assert observer.seconds == 0, "copies of it were used"


def first(module):
    return next(module.network.parameters())


def add_to_weight(trainer, module):
    first(module).data.add_(1e-3)


def add_to_buffer(trainer, module):
    next(module.network.buffers()).add_(1e-3)


def change_optimizer(trainer, module):
    trainer.optimizers[0].param_groups[0]["momentum"] = 0.91


def set_flag(trainer, module):
    module.network.network.layer1[1].eval()


def freeze(trainer, module):
    first(module).requires_grad_(False)


def leave_hook(trainer, module):
    module.network.register_forward_hook(lambda *_: None)


def change_metric(trainer, module):
    trainer.callback_metrics["val/clean_accuracy"].add_(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "message"),
    [
        (add_to_weight, "the weights network.network.layer1.0.weight differ"),
        (add_to_buffer, "the buffer network.[a-z.]* differs"),
        (change_optimizer, "the state of the optimizer differs"),
        (set_flag, r"module 'network.network.layer1.1' is in another mode \(train or eval\)"),
        (freeze, "requires_grad of network.network.layer1.0.weight is another"),
        (leave_hook, "module 'network' keeps a hook"),
        (change_metric, "what is logged as val/clean_accuracy differs"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_one_that_changes_training(act, message):
    """Once, when training ends, so that nothing follows from it."""

    class Meddles(Norms):
        def release(self):
            if self.seconds:
                act(*self.of)

        def observe(self, trainer, module):
            self.of = trainer, module
            return super().observe(trainer, module)

    with pytest.raises(AssertionError, match=f"^Training is the same with and without it: {message}.$"):
        check_observer(Meddles())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "source"),
    [(lambda: torch.rand(1), "torch"), (lambda: np.random.rand(), "NumPy"), (random.random, "Python")],
    ids=["torch", "NumPy", "Python"],
)
def test_one_that_draws(draw, source):
    """In a hook of its own: what a look draws is put back."""

    class Draws(Norms):
        analysis = "norms"

        def on_train_batch_end(self, *arguments):
            super().on_train_batch_end(*arguments)
            draw()

    with pytest.raises(
        AssertionError, match=f"it: Draws drew from the random state of {source}, which differs before batch 1.$"
    ):
        check_observer(Draws())


class Rows(Norms):
    """Returns rows that it is given."""

    analysis = "rows"

    def __init__(self, *rows, every_n_steps=3):
        super().__init__(every_n_steps=every_n_steps)
        self.rows = rows

    def observe(self, trainer, module):
        return self.rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("observer", "message"),
    [
        (Rows(), "^It looks at least once in two epochs: there is no table|^The table is tidy: it has no rows"),
        (Rows(("a", "", "x", 1.0), every_n_steps=99), "^It looks at least once in two epochs: there is no table"),
        (
            Rows(("a", "", "x", 1.0), ("a", "", "x", 2.0)),
            "^The table is tidy: 'x' of 'a' in epoch 0, step 2, is there",
        ),
        (Rows(("a", "", "", 1.0)), "^The table is tidy: a statistic of 'a' in step 2 has no name"),
        (Rows(("a", "", "x", float("nan"))), "^Its values are finite: 'x' of 'a' in epoch 0, step 2, is nan"),
    ],
    ids=["no rows", "no look", "twice", "no name", "NaN"],
)
def test_one_whose_table_is_not_tidy(observer, message):
    with pytest.raises(AssertionError, match=message):
        check_observer(observer)


class Counts(Norms):
    """Forgets where it was when a run is resumed."""

    looks = 0

    def observe(self, trainer, module):
        self.looks += 1
        return [Record("", "", "looks", self.looks)]


class Keeps(Counts):
    """Puts into a checkpoint what is not plain data."""

    def state(self):
        return {"looks": np.float64(self.looks)}


@pytest.mark.slow
def test_one_that_cannot_be_resumed():
    with pytest.raises(AssertionError, match=r"^A resumed run has the table of one that never stopped: 'looks'"):
        check_observer(Counts())
    with pytest.raises(AssertionError, match=r"^What a checkpoint holds of it is plain data: UnpicklingError"):
        check_observer(Keeps())


@pytest.mark.slow
def test_one_that_needs_a_logger():
    class Logs(Norms):
        def headline(self, module, records):
            module.logger.log_metrics({"mine": 1.0})
            return {}

    with pytest.raises(AssertionError, match=r"^It works without a logger: AttributeError"):
        check_observer(Logs())


@pytest.mark.slow
def test_one_that_writes_in_a_dry_run():
    class Writes(Norms):
        def release(self):
            pass

        def observe(self, trainer, module):
            from pathlib import Path

            Path(trainer.default_root_dir, "mine.txt").touch()
            return super().observe(trainer, module)

    with pytest.raises(AssertionError, match=r"^A dry run writes nothing: there is mine\.txt"):
        check_observer(Writes())
