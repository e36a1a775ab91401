"""The README is short, and the parts of one's own in it work as they stand. Its other blocks: tests/docs."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

from lightning_adv.cli import main
from tests.docs.pages import ROOT, blocks

README = ROOT / "README.md"


def test_it_is_a_door():
    assert len(README.read_text().splitlines()) <= 150


def test_the_commands_of_ci_are_there():
    spec = importlib.util.spec_from_file_location("readme_command", ROOT / ".ci/readme_command.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert "lightning-adv fit --config configs/digits/madry.yaml" in script.readme_command("train")
    assert "pytest" in script.readme_command("tests")


@pytest.mark.slow
def test_the_parts_of_ones_own_train_from_the_command_line(tmp_path, monkeypatch, capsys):
    """The block as a file ``my_parts.py``, and the command beside them, for two batches."""
    text = README.read_text()
    parts = text.partition("## Your own")[2].partition("\n## ")[0]
    (tmp_path / "my_parts.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", parts, re.DOTALL)))
    (command,) = re.findall(r"^lightning-adv (fit .*)$", parts, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_parts", raising=False)
    short = "--trainer.max_epochs 1 --trainer.limit_train_batches 2 --trainer.enable_progress_bar false"
    main(shlex.split(f"{command} {short}"))
    assert "HalfClean" in capsys.readouterr().out
    (table,) = Path("runs").rglob("weight_norm.csv")
    assert "norm" in table.read_text()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text()):
        assert (ROOT / target).exists(), target


def test_python_is_there():
    assert len(blocks("python", README)) == 2
