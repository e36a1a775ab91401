"""An observer in a folder of its own: it keeps the promises, runs from the command line, and is in the report."""

import importlib
import runpy
from pathlib import Path

import pytest

from lightning_adv.cli import main
from lightning_adv.core.table import read_table
from lightning_adv.testing import check_observer
from tests.commands.shortened import SHORT

MY_OBSERVER = """
from lightning_adv.callbacks import LayerSelection, Observer, Record
from lightning_adv.nn.layers import named_layers


class MyObserver(Observer):
    def __init__(self, layers: str = "**", every_n_epochs: int | None = None):
        super().__init__(every_n_epochs)
        self.layers = layers

    def observe(self, trainer, module):
        candidates = {name: m for name, m in named_layers(module.network).items() if hasattr(m, "weight")}
        for name, layer in LayerSelection(self.layers, "my_observer.layers").among(candidates).items():
            yield Record(name, "", "weight_norm", layer.weight.norm())
        yield Record("", "", "layers", len(candidates))
"""

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a module that holds the observer, as the working directory."""
    (tmp_path / "my_observers.py").write_text(MY_OBSERVER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_it_keeps_the_promises(folder):
    kind = importlib.import_module("my_observers").MyObserver
    assert kind.analysis == "my_observer"
    check_observer(kind(layers="layer*.*"))


@pytest.mark.slow
def test_it_runs_from_the_command_line_and_is_in_the_report(folder):
    add = ["--trainer.callbacks+=my_observers.MyObserver", "--trainer.callbacks.layers=layer1.*"]
    main(["fit", "--config=digits/standard", *add, *SHORT])
    run = folder / "runs/digits-standard/version_0"
    rows = read_table(run / "analyses/my_observer.csv")
    assert {row.name for row in rows} == {"", "layer1.0", "layer1.1"}
    assert "my_observer/layers" in (run / "metrics.csv").read_text()
    main(["report", str(run), "--output=report.html"])
    page = (folder / "report.html").read_text()
    assert "my_observer" in page
    assert "weight_norm" in page


@pytest.mark.slow
def test_the_example_writes_its_table(tmp_path):
    table = runpy.run_path(str(ROOT / "examples/observer.py"))["train"](tmp_path)
    rows = read_table(table)
    assert {row.epoch for row in rows} == {0, 1}
    assert {row.statistic for row in rows} == {f"class_{label}" for label in range(10)}
    assert all(0 <= row.value <= 1 for row in rows)
