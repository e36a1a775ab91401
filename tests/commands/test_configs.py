import locale
from pathlib import Path

import pytest

from lightning_adv.commands.shared.configs import (
    addition_names,
    config_names,
    find_config,
    preset_names,
    resolve_configs,
    study_names,
)


def test_names_are_the_files():
    folder = Path(__file__).parents[2] / "configs"
    names = [*config_names(), *addition_names(), *preset_names(), *study_names()]
    assert sorted(names) == sorted(str(p.relative_to(folder))[:-5] for p in folder.rglob("*.yaml"))
    assert {"digits/madry", "digits/standard", "cifar10/madry", "imagenet/madry"} <= set(config_names())
    assert addition_names() == ["analyses"]
    assert set(preset_names("evaluation")) >= {"evaluation/quick", "evaluation/standard", "evaluation/paper"}
    assert set(preset_names()) == {*preset_names("evaluation"), *preset_names("transfer"), *preset_names("interpret")}


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "madry").touch()
    assert find_config("digits/madry") == "digits/madry"


@pytest.mark.parametrize("name", ["digits/madry", "configs/digits/madry.yaml", "digits/madry.yaml"])
def test_names_in_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(find_config(name)).read_text().startswith("# Adversarial training")


@pytest.mark.parametrize("name", ["analyses", "configs/analyses.yaml", "analyses.yaml"])
def test_additions_in_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "callbacks+:" in Path(find_config(name)).read_text()


def test_unknown_name_lists_what_there_is():
    with pytest.raises(ValueError, match=r"Did you mean 'digits/madry'.*cifar10/\([^)]*\bstandard,.*analyses"):
        find_config("digits/mardy")
    with pytest.raises(ValueError, match="Did you mean 'analyses'"):
        find_config("analysis")


def test_only_what_follows_config_is_replaced():
    arguments = ["fit", "--config", "digits/madry", "--data.name", "digits/madry"]
    resolved = resolve_configs(arguments)
    assert resolved[2].endswith("digits/madry.yaml")
    assert resolved[3:] == arguments[3:]


def test_shipped_configurations_are_of_ascii_alone():
    """They are read by any locale."""
    folder = Path(__file__).parents[2] / "configs"
    assert [path.name for path in folder.rglob("*.yaml") if not path.read_bytes().isascii()] == []


def test_a_configuration_that_the_locale_would_read_otherwise(tmp_path, monkeypatch):
    path = tmp_path / "it.yaml"
    path.write_text("trainer: {logger: {init_args: {name: Zażółć}}}\n", encoding="utf-8")
    assert resolve_configs(["--config", str(path)]) == ["--config", str(path)]
    monkeypatch.setattr(locale, "getpreferredencoding", lambda do_setlocale=True: "ISO-8859-1")
    with pytest.raises(ValueError, match=r"it\.yaml cannot be read: .* would be read as ISO-8859-1: set PYTHONUTF8=1"):
        resolve_configs(["--config", str(path)])
    assert resolve_configs(["--config", "digits/madry"])[1].endswith("madry.yaml")
