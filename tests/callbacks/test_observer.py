"""When an observer looks, and where what it saw goes; with one that sees the first weight of the network."""

import csv
import time

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.loggers import CSVLogger, Logger
from matplotlib.figure import Figure

from lightning_adv.analysis.training_curves import read_metrics
from lightning_adv.callbacks import LastCheckpoint, Look, Observer, Throughput
from lightning_adv.core.table import Record, read_table
from lightning_adv.regimes import MadryTraining
from tests.regimes.toy import ATTACK, BACKBONE, ResumableToyData, ToyData, quiet_trainer


class FirstWeight(Observer):
    """Sees one number, and how often it was asked."""

    analysis = "first_weight"

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.prepared, self.released, self.drawn = 0, 0, []

    def prepare(self, trainer, regime):
        self.prepared += 1

    def look(self, trainer, regime):
        torch.rand(1)  # an observer may draw: training does not
        value = next(regime.network.parameters()).flatten()[0].item()
        return Look({"value": value}, [Record("conv", "", "value", value), Record("", "", "looks", 1.0)])

    def draw(self, rows):
        self.drawn.append(len(rows))
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([row.value for row in rows])
        return {"curve": figure}

    def release(self):
        self.released += 1


def module():
    torch.manual_seed(0)
    return MadryTraining(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK)


def fit(folder, *callbacks, data=ToyData, ckpt_path=None, regime=None, **options):
    logger = CSVLogger(folder, name="run", version=0)
    options = {"max_epochs": 3, "logger": logger, "log_every_n_steps": 50, **options}
    trainer = quiet_trainer(folder, callbacks=list(callbacks), enable_checkpointing=True, **options)
    trainer.fit(module() if regime is None else regime, data(), ckpt_path=ckpt_path, weights_only=True)
    return folder / "run" / "version_0"


def looks(run):
    """(epoch, step) of each look."""
    return [(row.epoch, row.step) for row in read_table(run / "analyses/first_weight.csv") if row.statistic == "looks"]


def logged(run):
    """(step, value) as the logger wrote it."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = [(row["step"], row.get("first_weight/value")) for row in csv.DictReader(file)]
    return [(int(step), float(value)) for step, value in rows if value]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        ({}, {}, [(0, 3), (1, 7), (2, 11)]),
        ({"every_n_epochs": 2}, {}, [(1, 7)]),
        ({"every_n_steps": 5}, {}, [(1, 4), (2, 9)]),
        ({}, {"accumulate_grad_batches": 2}, [(0, 1), (1, 3), (2, 5)]),
        ({"every_n_steps": 2}, {"accumulate_grad_batches": 2}, [(0, 1), (1, 3), (2, 5)]),
        ({"every_n_steps": 1}, {"max_steps": 2}, [(0, 0), (0, 1)]),
    ],
)
def test_when_it_looks(tmp_path, arguments, options, expected):
    """An epoch has four steps, counted from 0; the scalars stand at the same steps as the rows."""
    run = fit(tmp_path, FirstWeight(**arguments), **options)
    assert looks(run) == expected
    rows = [row for row in read_table(run / "analyses/first_weight.csv") if row.name == "conv"]
    assert [(step, pytest.approx(value)) for step, value in logged(run)] == [(row.step, row.value) for row in rows]


@pytest.mark.slow
def test_another_rhythm_is_one_override(tmp_path):
    class Doubling(FirstWeight):
        def should_look(self, *, epoch=None, step=None):
            return step is not None and step & (step - 1) == 0

    assert [step + 1 for _, step in looks(fit(tmp_path, Doubling()))] == [1, 2, 4, 8]


@pytest.mark.slow
def test_figures_are_drawn_at_first_now_and_then_and_at_last(tmp_path):
    observer = FirstWeight(every_n_steps=1, figures_every_n_looks=4)
    run = fit(tmp_path, observer, max_epochs=3)
    assert [rows // 2 for rows in observer.drawn] == [1, 5, 9, 12]
    assert (run / "figures/first_weight_curve.png").read_bytes()[:4] == b"\x89PNG"
    assert (observer.prepared, observer.released) == (1, 1)


@pytest.mark.slow
def test_a_last_figure_that_is_there_is_not_drawn_again(tmp_path):
    observer = FirstWeight(figures_every_n_looks=1)
    fit(tmp_path, observer)
    assert len(observer.drawn) == 3


class StopsAfter(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            raise RuntimeError("killed")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{}, {"every_n_steps": 1}], ids=["epochs", "steps"])
def test_a_resumed_run_has_the_table_of_one_that_never_stopped(tmp_path, arguments):
    whole = fit(tmp_path / "whole", FirstWeight(**arguments), data=ResumableToyData)
    with pytest.raises(RuntimeError, match="killed"):
        # the last checkpoint is of step 9; what was seen after it will be seen again
        fit(tmp_path / "parts", FirstWeight(**arguments), LastCheckpoint(every_n_train_steps=3), StopsAfter(11),
            data=ResumableToyData)  # fmt: skip
    parts = tmp_path / "parts/run/version_0"
    before = looks(parts)
    assert len(before) == (2 if not arguments else 11)  # readable after the crash
    with (parts / "analyses/first_weight.csv").open("a") as file:
        file.write("2,10,conv,,val")  # half a line
    observer = FirstWeight(**arguments)
    fit(tmp_path / "parts", observer, data=ResumableToyData, ckpt_path=parts / "checkpoints/last.ckpt")
    assert read_table(parts / "analyses/first_weight.csv") == read_table(whole / "analyses/first_weight.csv")
    assert looks(parts) == looks(whole)
    kept = read_table(parts / "analyses/first_weight-until-resume-1.csv")
    assert [(row.epoch, row.step) for row in kept if row.statistic == "looks"] == before


@pytest.mark.slow
def test_a_new_run_in_an_old_folder_keeps_the_old_table(tmp_path):
    first = read_table(fit(tmp_path, FirstWeight()) / "analyses/first_weight.csv")
    run = fit(tmp_path, FirstWeight(), max_epochs=1)
    assert looks(run) == [(0, 3)]
    assert read_table(run / "analyses/first_weight-until-resume-1.csv") == first


class Slow(FirstWeight):
    def prepare(self, trainer, regime):
        time.sleep(1)

    def look(self, trainer, regime):
        time.sleep(10)
        return super().look(trainer, regime)

    def draw(self, rows):
        time.sleep(100)
        return super().draw(rows)


@pytest.fixture
def own_time(monkeypatch):
    """A clock that only sleep moves."""
    now = [0.0]
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])


class Trains(Callback):
    def on_train_batch_start(self, *_):
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False], ids=["clock first", "observer first"])
def test_what_an_observer_takes_is_not_training(tmp_path, own_time, first):
    def callbacks():
        clock, observer = Throughput(), Slow()
        return clock, observer, [clock, observer] if first else [observer, clock]

    clock, observer, both = callbacks()
    run = fit(tmp_path, Trains(), *both, LastCheckpoint(), max_epochs=2)
    assert observer.seconds == pytest.approx(1 + 2 * 10 + 2 * 100)
    assert clock.training_seconds == pytest.approx(8 * 0.01)
    clock, observer, both = callbacks()
    fit(tmp_path, Trains(), *both, ckpt_path=run / "checkpoints/last.ckpt")
    # the last drawing of the run before came after its checkpoint
    assert observer.seconds == pytest.approx(1 + 2 * 10 + 100 + 1 + 10 + 100)
    assert clock.training_seconds == pytest.approx(12 * 0.01)


@pytest.mark.slow
def test_a_new_run_counts_from_nothing(tmp_path, own_time):
    observer = Slow(figures_every_n_looks=2)
    for folder in ("one", "two"):
        fit(tmp_path / folder, observer)
        assert observer.seconds == pytest.approx(1 + 3 * 10 + 2 * 100)
    assert observer.drawn == [2, 6, 2, 6]


@pytest.mark.slow
def test_drawings_become_rarer_with_the_table(tmp_path):
    observer = FirstWeight(every_n_steps=1, figures_every_n_looks=1)
    fit(tmp_path, observer, max_epochs=10)
    looks_between = [(b - a) // 2 for a, b in zip(observer.drawn, observer.drawn[1:], strict=False)]
    assert looks_between[:18] == [1] * 18
    assert sum(looks_between) == 39
    assert looks_between[-2] == 3  # a tenth of more than 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_n_epochs": 0}, "first_weight.every_n_epochs must be an integer of at least 1, got 0"),
        ({"every_n_steps": 1.5}, "first_weight.every_n_steps must be an integer of at least 1, got 1.5"),
        ({"figures_every_n_looks": -1}, "first_weight.figures_every_n_looks must be an integer of at least 1, got -1"),
        ({"every_n_epochs": 1, "every_n_steps": 2}, "every_n_epochs and first_weight.every_n_steps exclude each other"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        FirstWeight(**arguments)


class Plain(LightningModule):
    """A module of nobody's package, that has no more than a network to observe."""

    def __init__(self):
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 2))

    def training_step(self, batch):
        return torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class WeightNorms(Observer):
    """No more than a table: the rest is the base's."""

    needs = ("network",)

    def observe(self, trainer, module):
        for name, weight in module.network.named_parameters():
            yield Record(name, "", "norm", weight.norm())
        yield Record("", "", "parameters", sum(weight.numel() for weight in module.network.parameters()))


def test_an_observer_of_one_method(tmp_path):
    """Its name is the class's, its numbers may be tensors, and those of the whole network are logged."""
    module = Plain()
    run = fit(tmp_path, WeightNorms(every_n_epochs=3), regime=module)
    rows = read_table(run / "analyses/weight_norms.csv")
    assert [row[:5] for row in rows if row.name == "2.bias"] == [(2, 11, "2.bias", "", "norm")]
    assert rows[0].value == pytest.approx(module.network[0].weight.norm().item())
    assert read_metrics(run / "metrics.csv")["weight_norms/parameters"] == [(2, 166)]


def test_a_module_that_lacks_what_an_observer_needs(tmp_path):
    message = (
        "^FirstWeight attacks the network, and Plain is no regime, which would say how: give "
        "first_weight.evaluation_attack.$"
    )
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, FirstWeight(), regime=Plain())


@pytest.mark.slow
def test_a_picture_that_fails_does_not_end_training(tmp_path):
    class Broken(FirstWeight):
        def draw(self, rows):
            raise OSError("no space left")

    observer = Broken(figures_every_n_looks=1)
    with pytest.warns(UserWarning, match=r"tables of first_weight are missing: OSError.*are in .*first_weight") as told:
        run = fit(tmp_path, observer, LastCheckpoint())
    assert observer.lost == "pictures of first_weight (no space left)"  # which a command ends with, and status 1
    assert looks(run) == [(0, 3), (1, 7), (2, 11)]
    assert (run / "checkpoints/last.ckpt").is_file()
    assert sum("first_weight" in str(warning.message) for warning in told) == 1


@pytest.mark.slow
def test_a_bug_in_draw_is_told_with_its_line(tmp_path):
    class Broken(FirstWeight):
        def draw(self, rows):
            return {}["figure"]

    with pytest.warns(
        UserWarning, match=r"(?s)tables of first_weight are missing: KeyError.*test_observer.py.*in draw"
    ):
        fit(tmp_path, Broken(), max_epochs=1)


@pytest.mark.slow
def test_an_observer_that_joins_a_resumed_run_keeps_the_table(tmp_path):
    first = fit(tmp_path, FirstWeight(), LastCheckpoint(), max_epochs=1)
    without = fit(tmp_path, LastCheckpoint(), max_epochs=2, ckpt_path=first / "checkpoints/last.ckpt")
    run = fit(tmp_path, FirstWeight(), ckpt_path=without / "checkpoints/last.ckpt")
    assert looks(run) == [(0, 3), (2, 11)]


@pytest.mark.slow
def test_rows_of_a_branch_that_was_left_end_where_it_was_left(tmp_path):
    first = fit(tmp_path, FirstWeight(), LastCheckpoint(every_n_epochs=2))
    fit(tmp_path, FirstWeight(every_n_epochs=9), max_epochs=3, ckpt_path=first / "checkpoints/last.ckpt")
    assert looks(first) == [(0, 3), (1, 7)]
    assert len(read_table(first / "analyses/first_weight-until-resume-1.csv")) == 6


def test_two_observers_of_one_name(tmp_path):
    class Another(FirstWeight):
        pass

    with pytest.raises(ValueError, match="two observers whose analysis is 'first_weight'"):
        fit(tmp_path, FirstWeight(), Another())


def test_a_file_in_the_place_of_the_table_is_told_before_training(tmp_path):
    table = tmp_path / "run/version_0/analyses/first_weight.csv"
    table.parent.mkdir(parents=True)
    table.write_text("my;own;notes\n")
    with pytest.raises(ValueError, match=r"first_weight: .*is no table of an analysis.*Move it away"):
        fit(tmp_path, FirstWeight())
    assert table.read_text() == "my;own;notes\n"


class OneFolder(Logger):
    """Has one folder for all of its runs, as W&B's does."""

    def __init__(self, folder, version):
        super().__init__()
        self._folder, self._version = folder, version

    name, version = "project", property(lambda self: self._version)
    save_dir = property(lambda self: str(self._folder))

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params):
        pass


@pytest.mark.slow
def test_runs_of_a_logger_without_folders_have_their_own(tmp_path):
    for version in ("a1", "b2"):
        fit(tmp_path, FirstWeight(), logger=OneFolder(tmp_path, version))
    for version in ("a1", "b2"):
        assert looks(tmp_path / "project" / version) == [(0, 3), (1, 7), (2, 11)]
        assert (tmp_path / "project" / version / "figures/first_weight_curve.png").is_file()


@pytest.mark.slow
def test_an_interrupted_run_lets_go(tmp_path):
    observer = FirstWeight()
    with pytest.raises(RuntimeError, match="killed"):
        fit(tmp_path, observer, StopsAfter(5))
    assert observer.released == 1


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (None, "yield each Record, got a NoneType"),
        ([3.0], "with a number each, got 3.0"),
        ([Record("a", "", "s", torch.ones(3))], "with a number each, got Record"),
    ],
)
def test_what_observe_must_give(tmp_path, given, got):
    class Other(WeightNorms):
        def observe(self, trainer, module):
            return given

    with pytest.raises(TypeError, match=f"^Other.observe must .*{got}"):
        fit(tmp_path, Other(), regime=Plain())
