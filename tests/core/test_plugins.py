"""What installed packages announce, read from their metadata."""

import sys

import pytest

from lightning_adv.core import plugins
from lightning_adv.core.errors import UsageError
from tests.fake_plugins import install

RAISES = {"first/__init__.py": "raise RuntimeError('imported')\n", "first/parts.py": ""}
ENTRIES = {"attack.SignStep": "first.parts:SignStep", "network.my_net": "first.parts:net"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("first", "second")]:
        del sys.modules[name]


def test_nothing_is_imported_to_know_what_is_announced(folder):
    (folder / "first/configs/evaluation").mkdir(parents=True)
    install(folder, "first-plugin", ENTRIES | {"configs": "first.configs"}, RAISES, version="1.2")
    told = {(part.kind, part.name): part.path for part in plugins.parts()}
    assert told == {("attack", "SignStep"): "first.parts.SignStep", ("network", "my_net"): "first.parts.net"}
    assert [part.name for part in plugins.parts(["network", "data"])] == ["my_net"]
    assert plugins.find_part("attack", "SignStep").plugin == plugins.Plugin("first-plugin", "1.2")
    assert plugins.find_part("attack", "my_net") is None
    assert plugins.announced_packages() == {"first"}
    assert [path for _, path in plugins.config_folders()] == [folder / "first/configs"]
    assert plugins.plugins_in(["torch.nn", "first.parts", "first"]) == {"first-plugin": "1.2"}
    assert plugins.plugins_in(["firstly"]) == {}
    assert "first" not in sys.modules


def test_what_is_installed_later_is_found(folder, tmp_path_factory, monkeypatch):
    assert plugins.parts() == []
    later = tmp_path_factory.mktemp("later")
    install(later, "first-plugin", ENTRIES, {})
    monkeypatch.syspath_prepend(later)
    assert len(plugins.parts()) == 2


def test_a_run_folder_announces_nothing(folder, monkeypatch):
    """What is announced is trusted, and commands look for a user's own modules in the working directory."""
    install(folder, "first-plugin", ENTRIES, RAISES)
    monkeypatch.chdir(folder)
    assert plugins.announced_packages() == frozenset()
    assert plugins.parts() == []
    monkeypatch.syspath_prepend("")
    assert plugins.parts() == []


def test_the_distribution_that_comes_first_on_the_path_counts(folder, tmp_path_factory, monkeypatch):
    install(folder, "first-plugin", ENTRIES, RAISES)
    before = tmp_path_factory.mktemp("before")
    install(before, "first-plugin", {"loss.MyLoss": "first.parts:MyLoss"}, RAISES, version="2.0")
    monkeypatch.syspath_prepend(before)
    assert [(part.name, part.plugin.version) for part in plugins.parts()] == [("MyLoss", "2.0")]


def test_of_a_shared_namespace_only_the_own_package_is_announced(folder):
    modules = {"company/own/__init__.py": "", "company/own/parts.py": "", "single.py": ""}
    install(folder, "own", {"attack.A": "company.own.parts:A", "loss.B": "single:B"}, modules)
    assert plugins.announced_packages() == {"company.own", "single"}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("SignStep", "first:SignStep", "a kind and a name: regime.MyClass, attack.MyClass"),
        ("attak.SignStep", "first:SignStep", "a kind and a name"),
        ("attack.Sign", "first:SignStep", "a class is announced by its own name"),
        ("attack.SignStep", "first", "it must have the form my_package.attacks:SignStep"),
        ("attack.Inner", "first.parts:Outer.Inner", "it must have the form"),
        ("configs", "first.nowhere", "there is no such folder"),
        ("configs", "nowhere", "there is no such folder"),
        ("configs", "first:configs", "it must have the form my_package.configs"),
        ("network.shell", "os:system", "os is not a package of the plugin's"),
        ("network.hub", "torch.hub:load", "torch is not a package of the plugin's"),
    ],
)
def test_what_is_announced_wrongly_is_named_and_the_others_go_on(name, value, told, folder, caplog):
    install(folder, "first-plugin", {name: value}, RAISES)
    install(folder, "second-plugin", {"attack.Good": "second:Good"}, {"second.py": ""})
    assert [part.name for part in plugins.parts()] == ["Good"]
    assert plugins.announced_packages() == {"second"}
    (record,) = caplog.records
    assert f"The plugin first-plugin 1.0 announces {name!r} = {value!r}" in record.getMessage()
    assert told in record.getMessage()


@pytest.mark.parametrize("finder", ["importlib.metadata", "importlib_metadata"])  # some libraries import the latter
@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("entry_points.txt", b"[lightning_adv.plugins]\nno equals sign\n", "cannot be read"),
        ("entry_points.txt", b"\xff\xfe[lightning_adv.plugins]", "cannot be read"),
        ("METADATA", b"Metadata-Version: 2.1\n", "have no name"),
        ("METADATA", None, "have no name"),
    ],
)
def test_damaged_metadata_are_named_and_the_others_go_on(file, content, told, finder, folder, caplog, monkeypatch):
    """An installation that was cut short must not end every command."""
    monkeypatch.setattr(plugins, "distributions", pytest.importorskip(finder).distributions)
    install(folder, "first-plugin", ENTRIES, {})
    install(folder, "second-plugin", {"attack.Other": "second:Other"}, {})
    path = folder / "second_plugin-1.0.dist-info" / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert [part.plugin.name for part in plugins.parts()] == ["first-plugin", "first-plugin"]
    assert plugins.announced_packages() == {"first"}
    assert f"{path.parent} is left out: its metadata {told}" in caplog.text


def test_a_name_of_two_plugins_is_answered_with_what_to_write(folder):
    install(folder, "first-plugin", ENTRIES, RAISES)
    install(folder, "second-plugin", {"network.my_net": "second:my_net"}, {"second.py": ""}, version="2.0")
    with pytest.raises(UsageError) as error:
        plugins.find_part("network", "my_net")
    assert "write first.parts.net (of first-plugin 1.0) or second.my_net (of second-plugin 2.0)" in str(error.value)
    assert plugins.find_part("attack", "SignStep") is not None


@pytest.mark.parametrize(
    ("modules", "why"),
    [
        (RAISES, r"RuntimeError: imported \(\S*first/__init__.py, line 1\)"),
        ({"first/parts.py": ""}, "it is not there"),
        ({}, "it is not there"),
    ],
)
def test_a_part_that_cannot_be_loaded_is_named(modules, why, folder):
    install(folder, "first-plugin", ENTRIES, modules)
    told = rf"^'first.parts.SignStep' cannot be imported: {why}. The plugin first-plugin 1.0 announces it.$"
    with pytest.raises(UsageError, match=told):
        plugins.find_part("attack", "SignStep").load()


def test_a_part_is_loaded(folder):
    install(folder, "first-plugin", ENTRIES, {"first/parts.py": "class SignStep: pass\n"})
    assert plugins.find_part("attack", "SignStep").load() is sys.modules["first.parts"].SignStep
