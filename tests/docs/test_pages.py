"""What README and pages contain runs: Python as it stands, YAML as configurations, commands as command lines."""

import importlib
import re
import shlex
import sys
from inspect import ismodule
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from lightning_adv.analysis.images.cue_conflict import parse_mapping
from lightning_adv.cli import main
from lightning_adv.commands.evaluate.settings import parse_settings
from lightning_adv.commands.export.command import _parser as export_parser
from lightning_adv.commands.interpret.settings import INTERPRET
from lightning_adv.commands.push.command import _parser as push_parser
from lightning_adv.commands.shared.configs import config_names, preset_names
from lightning_adv.studies.collect import parse_collect
from lightning_adv.studies.figures import check_figure
from lightning_adv.studies.grid import axis_columns, expand
from lightning_adv.studies.study_file import make_study
from lightning_adv.studies.table import check_columns, expected_measures
from tests.docs.pages import PAGES, ROOT, blocks, commands

WITH_PYTHON = [name for name, page in PAGES.items() if blocks("python", page)]
STUDIES = PAGES["docs/studies.md"]
OWN_SIGNAL = next(each for each in blocks("python", PAGES["docs/observers.md"]) if "class Confidence(Signal)" in each)
WITH_YAML = [name for name, page in PAGES.items() if blocks("yaml", page) and page != STUDIES]


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_PYTHON)
def test_python_runs(name, tmp_path, monkeypatch):
    """The blocks of a page one after the other, each with the names of those before it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    page = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", page)  # where a regime's checkpoint finds the class
    for block in blocks("python", PAGES[name]):
        exec(compile(block, name, "exec"), vars(page))


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_YAML)
def test_yaml_is_a_configuration(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_package", raising=False)
    Path("my_package.py").write_text(OWN_SIGNAL)
    for number, block in enumerate(blocks("yaml", PAGES[name])):
        Path("page.yaml").write_text(block)
        given = yaml.safe_load(block)
        if "sections" in given:
            assert INTERPRET.settings(["--config", "page.yaml"])[0].sections
        elif "# sixteen.yaml" in block:
            assert parse_mapping(given) == given
        else:
            with pytest.raises(SystemExit) as end:
                main(["fit", "--config", "digits/standard", "--config", "page.yaml", "--print_config"])
            assert end.value.code == 0, (number, capsys.readouterr().err)


@pytest.mark.parametrize("block", blocks("yaml", STUDIES))
def test_yaml_of_a_study_is_one(block):
    """A whole study file, or keys that one may have whose stages are named as on the page."""
    commands = {"pretrain": "fit", "retrain": "fit", "attacked": "evaluate", "moved": "transfer"}
    config = {"fit": "digits/standard", "evaluate": "evaluation/quick", "transfer": "transfer/fgsm_family"}
    whole = {
        "stages": {name: {"command": command, "config": config[command]} for name, command in commands.items()},
        "grid": [
            {"setting": {"before": {}, "after": {}}, "model.init_args.cutoff": ["m1", "m2"]},
            {"setting": {"only pretrained": {"retrain": None}}},
        ],
    }
    given = yaml.safe_load(block)
    study = make_study(given if {"stages", "config"} & set(given) else {**whole, **given}, name="page")
    columns = {name: [point.names.get(name, "") for point in expand(study)] for name in axis_columns(study)}
    stages = {name: stage.command for name, stage in study.stages.items()}
    check_columns(columns, stages, parse_collect(study.collect, stages))
    check_figure(study.figure, columns, expected_measures(stages, study.collect))


@pytest.fixture
def own_parts(tmp_path, monkeypatch):
    """The modules of one's own that commands name, with the classes that the pages write."""
    (tmp_path / "my_parts.py").write_text("\n".join(blocks("python", PAGES["README.md"])[1:]))
    (tmp_path / "my_data.py").write_text(blocks("python", PAGES["docs/extend/data_module.md"])[0])
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("my_parts", "my_data"):
        sys.modules.pop(name, None)


# what names a configuration and nothing else is a test of that configuration
SETTING = [line for line in commands("fit") if re.match(r"fit --config [a-z]\S+ --", line.partition("#")[0])]


@pytest.mark.slow
@pytest.mark.parametrize("command", SETTING)
@pytest.mark.usefixtures("own_parts")
def test_commands_parse(command, tmp_path, monkeypatch):
    """With words in place of SEED and FOLDER; some name a file of the repository."""
    monkeypatch.chdir(ROOT)
    command = command.replace("SEED", "0").replace("FOLDER", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        main([*shlex.split(command, comments=True), "--print_config"])
    assert end.value.code == 0


@pytest.mark.slow
@pytest.mark.parametrize("command", commands("evaluate"))
@pytest.mark.usefixtures("own_parts")
def test_evaluations_parse(command, tmp_path, monkeypatch):
    """With a folder in place of FOLDER, and the file that stylize writes; the checkpoint is read later."""
    monkeypatch.chdir(tmp_path)
    Path("stylised").mkdir()
    test_images = {"class_path": "ImageFolderDataModule", "init_args": {"root": "stylised", "test_only": True}}
    Path("stylised/data.yaml").write_text(yaml.safe_dump({"data": test_images}))
    settings, _ = parse_settings(shlex.split(command.replace("FOLDER", str(tmp_path)), comments=True)[1:])
    assert settings.attacks or settings.corruptions is not None


@pytest.mark.parametrize(
    ("command", "parser"),
    [*((each, export_parser) for each in commands("export")), *((each, push_parser) for each in commands("push"))],
)
def test_exports_and_pushes_parse(command, parser):
    parser().parse_args(shlex.split(command, comments=True)[1:])


def test_named_configurations_exist():
    text = "\n".join(page.read_text() for page in PAGES.values())
    folders = "digits|cifar10|cifar10_folder|imagenet|imagenette|finetune|evaluation|transfer|interpret"
    named = set(re.findall(rf"(?<![/\w])((?:{folders})/\w+)\b(?![./])", text))
    assert named >= set(preset_names())
    assert named <= {*config_names(), *preset_names()}


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "api").glob("[!i]*.md")), ids=lambda page: page.stem)
def test_the_reference_lists_what_a_module_offers(page):
    """Autodoc lists what ``dir`` does, and no constants: those stand on the page."""
    text = page.read_text()
    for path in re.findall(r"automodule:: (\S+)", text):
        module = importlib.import_module(path)
        offered = set(getattr(module, "__all__", ()))
        assert offered <= set(dir(module))
        constants = {name for name in offered if not (callable(value := getattr(module, name)) or ismodule(value))}
        assert constants <= set(re.findall(r"py:data:: (\w+)", text))
