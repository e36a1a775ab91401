"""Whose code is imported because a file names it."""

import sys
from pathlib import Path

import pytest

from lightning_adv.attacks import Attack
from lightning_adv.core.recipe import NotImportedError, check_class_paths, import_class
from lightning_adv.core.trust import is_trusted, trust, trust_package_of, trusting_for_a_command

NAMED = {"class_path": "beside.inner.Own"}


@pytest.fixture(autouse=True)
def _beside(tmp_path, monkeypatch):
    """A package beside the files, whose module leaves a mark when it is imported."""
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/__init__.py").touch()
    code = "from lightning_adv.attacks import FGSM\nopen('mark', 'w').close()\nclass Own(FGSM):\n    pass\n"
    (tmp_path / "beside/inner.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with trusting_for_a_command():
        yield
    for name in ("beside", "beside.inner"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("other", ["besides", "beside.other", "inner", "beside.inner.Own"])
def test_what_is_not_named_is_not_imported(other):
    trust(other)
    for check in (Attack.from_config, check_class_paths):
        with pytest.raises(
            NotImportedError, match=r"^class_path 'beside\.inner\.Own' .* --trust beside on the command"
        ):
            check(NAMED)
    assert not Path("mark").exists()


@pytest.mark.parametrize("named", ["beside", "beside.inner"])
def test_what_is_named_is_imported_when_a_file_names_it(named):
    trust("another", named)
    assert not Path("mark").exists()
    assert Attack.from_config(NAMED).eps == 8 / 255
    assert Path("mark").exists()


def test_a_command_forgets_at_its_end():
    trust("before")
    with trusting_for_a_command():
        trust("beside")
        assert is_trusted("beside.inner")
    assert is_trusted("before")
    assert not is_trusted("beside.inner")


def test_ours_is_trusted_and_what_is_called_alike_is_not():
    assert is_trusted("lightning_adv.attacks")
    assert not is_trusted("lightning_adv_extra.attacks")


@pytest.mark.parametrize("name", ["", "my-package", "a/b", "a.", ".a", "8"])
def test_what_is_not_the_name_of_a_package(name):
    with pytest.raises(ValueError, match=r"^trust: is .*, which is not the name of a package"):
        trust(name)


@pytest.mark.parametrize("name", ["os", "importlib.util", "lightning_adv,os"])
def test_pythons_own_library_is_trusted_with_nothing(name):
    """``os.system`` would be called with what a file says."""
    with pytest.raises(ValueError, match=r"^trust: is .*, which is of Python's own library"):
        trust(*name.split(","))
    assert not is_trusted("os")


def test_a_library_is_not_trusted_because_a_configuration_names_a_part_of_it():
    """``torch.hub.load`` runs what a folder holds."""
    for name in ("torch.optim.SGD", "lightning.pytorch.callbacks.Timer", "os.path.Own", "beside.inner.Own"):
        trust_package_of(name)
    assert not any(map(is_trusted, ("torch.hub", "lightning.pytorch", "os")))
    assert is_trusted("beside")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("value = 1 / 0", r"ZeroDivisionError: division by zero \(.*inner\.py, line 1\)"),
        ("import no_such_package", r"No module named 'no_such_package' \(.*inner\.py, line 1\)"),
        ("class:", r"SyntaxError: .* \(.*inner\.py, line 1\)"),
        ("", r"beside\.inner has no 'Own'"),
    ],
)
def test_the_error_inside_a_trusted_module_is_shown(line, told):
    Path("beside/inner.py").write_text(line)
    with pytest.raises(ValueError, match=rf"'beside\.inner\.Own' cannot be imported: .*{told}"):
        import_class("beside.inner.Own")


def test_what_an_installed_plugin_announces_is_trusted(monkeypatch):
    monkeypatch.setattr("lightning_adv.core.trust.announced_packages", lambda: frozenset({"beside"}))
    assert Attack.from_config(NAMED).eps == 8 / 255
