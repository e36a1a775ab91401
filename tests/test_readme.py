"""The README's Python runs as it stands, and its commands and files exist."""

import re
import shlex
from pathlib import Path

import pytest

from lightning_adv.cli import main
from lightning_adv.commands.evaluate.settings import parse_settings
from lightning_adv.commands.shared.configs import config_names, preset_names

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "tensor(" in capsys.readouterr().out


def test_yaml_is_a_configuration(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    Path("readme.yaml").write_text(block)
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "cifar10/madry", "--config", "readme.yaml", "--print_config"])
    assert end.value.code == 0
    assert "eps_warmup_epochs: 5" in capsys.readouterr().out


@pytest.mark.parametrize("command", re.findall(r"^lightning-adv (fit --config [a-z].*)$", README, re.MULTILINE))
def test_commands_parse(command, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])  # some name a file of the repository
    with pytest.raises(SystemExit) as end:
        main([*shlex.split(command, comments=True), "--print_config"])
    assert end.value.code == 0


EVALUATIONS = re.findall(r"^lightning-adv (evaluate .*)$", README, re.MULTILINE)


@pytest.mark.parametrize("command", EVALUATIONS)
def test_evaluations_parse(command, tmp_path):
    """With a folder in place of FOLDER; the checkpoint is read later."""
    settings, _ = parse_settings(shlex.split(command.replace("FOLDER", str(tmp_path)), comments=True)[1:])
    assert settings.attacks or settings.corruptions is not None


def test_named_configurations_and_files_exist():
    named = set(re.findall(r"\b((?:digits|cifar10|cifar10_folder|imagenet|evaluation|transfer)/\w+)\b(?!\.)", README))
    assert named >= set(preset_names())
    assert named <= {*config_names(), *preset_names()}
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (Path(__file__).parents[1] / target).exists(), target
