"""Parts of plugins by their short names, on the command line and in YAML."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_adv.attacks import Attack
from lightning_adv.cli import main
from lightning_adv.commands.shared import class_paths
from lightning_adv.commands.shared.configs import find_config
from lightning_adv.commands.shared.plugin_parts import taking_part
from lightning_adv.core.errors import UsageError
from lightning_adv.nn.libraries import find_network
from lightning_adv.nn.named_by_files import check_named
from tests.fake_plugins import install

PARTS = """
from lightning.pytorch import Callback
from lightning_adv.attacks import FGSM, Loss
from lightning_adv.data import DigitsDataModule
from lightning_adv.regimes import MadryTraining
from lightning_adv.regimes.objectives import CrossEntropy

class StepOfPlugin(FGSM): pass
class Watch(Callback): pass
class Numbers(DigitsDataModule): pass
class Plain(MadryTraining): pass
class Aim(CrossEntropy): pass
class Margin(Loss):
    def __call__(self, logits, y):
        return logits.logsumexp(1)
"""
NAMES = {"attack": "StepOfPlugin", "callback": "Watch", "data": "Numbers", "regime": "Plain", "objective": "Aim"}
ENTRIES = {f"{kind}.{name}": f"short_names.parts:{name}" for kind, name in NAMES.items()} | {
    "loss.Margin": "short_names.parts:Margin",
    "callback.Unloaded": "nowhere:Unloaded",
    "configs": "short_names.configs",
}
MODULES = {
    "short_names/__init__.py": "",
    "short_names/parts.py": PARTS,
    "short_names/configs/evaluation/strict.yaml": "name: strict\nattacks: [StepOfPlugin]\n",
    "short_names/configs/mine/plain.yaml": "model: {class_path: Plain}\n",
    "short_names/configs/more.yaml": "trainer: {callbacks+: [Watch]}\n",
}


@pytest.fixture(scope="session")  # a module's would be made twice where pytest-xdist splits the file
def site(tmp_path_factory):
    """A folder with a plugin, the same for all tests: its classes are there until the process ends."""
    site = tmp_path_factory.mktemp("site")
    install(site, "short-names", ENTRIES, MODULES, version="0.3")
    return site


@pytest.fixture
def folder(site, tmp_path, monkeypatch):
    """A folder for further plugins, on the path; the working directory is another."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.syspath_prepend(tmp_path / "others")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "others"


def printed(capsys, *arguments):
    """Return the configuration that a command prints."""
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--print_config"])
    told = capsys.readouterr()
    assert end.value.code == 0, told.err
    return told.out


def alone(path, arguments):
    """Return what a command prints in a process of its own."""
    code = (
        f"import sys; sys.path[:0] = {list(map(str, path))!r}; from lightning_adv.cli import main\n"
        f"try:\n    main({arguments!r})\nfinally:\n    print(sorted(sys.modules))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def refused(capsys, *arguments):
    """Return the one line of a command that refuses its arguments."""
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert end.value.code in (1, 2)
    told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("See lightning-adv")]
    (line,) = told
    return line


@pytest.mark.slow
def test_every_kind_is_found_by_its_short_name(site, folder):
    """In a process in which nothing is imported before its name is read."""
    loss = "--model.evaluation_attack={class_path: PGD, init_args: {loss: Margin}}"
    named = [f"--model.{kind}={NAMES[kind]}" for kind in ("attack", "objective")]
    named += [f"--model={NAMES['regime']}", f"--data={NAMES['data']}", f"--trainer.callbacks+={NAMES['callback']}"]
    told = alone([site, folder], ["fit", "--config=digits/madry", *named, loss, "--print_config"])
    for name in [*NAMES.values(), "Margin"]:
        assert f"class_path: short_names.parts.{name}" in told or f"loss: short_names.parts.{name}" in told


def test_configurations_are_found_by_name(folder, capsys):
    found = printed(capsys, "fit", "--config=digits/standard", "--config", "mine/plain", "--config=more")
    assert "class_path: short_names.parts.Plain" in found
    assert "class_path: short_names.parts.Watch" in found
    found = printed(capsys, "evaluate", "--config=configs/evaluation/strict.yaml")
    assert "class_path: short_names.parts.StepOfPlugin" in found
    assert "Did you mean 'evaluation/strict'" in (told := refused(capsys, "evaluate", "--config=evaluation/strikt"))
    assert "Plugins have evaluation/strict, mine/plain, more." in told


def test_help_lists_the_parts_and_imports_none(site, folder):
    install(folder, "broken", {"attack.Broken": "broken:Broken"}, {"broken.py": "raise RuntimeError\n"})
    told = alone([site, folder], ["--help"])
    modules = ast.literal_eval(told.splitlines()[-1])
    assert not {"torch", "lightning", "short_names", "broken"} & set(modules)
    assert "  broken 1.0\n    attack     Broken\n  short-names 0.3\n    regime     Plain\n" in told
    assert "    configs    evaluation/strict, mine/plain, more\n" in told


@pytest.mark.slow
def test_help_of_a_command_knows_the_parts_and_leaves_out_what_cannot_be_imported(folder, capsys):
    install(folder, "broken", {"attack.Broken": "broken:Broken"}, {"broken.py": "raise RuntimeError('gone')\n"})
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    told = capsys.readouterr()
    assert "short_names.parts.Plain" in told.out
    assert told.err.count("broken.Broken") == 1
    assert "RuntimeError: gone" in told.err
    assert "The plugin broken 1.0 announces it. It is left out." in told.err
    with pytest.raises(SystemExit):
        main(["fit", "--model.help=Plain"])
    assert "--model.attack" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert "evaluation/strict" in capsys.readouterr().out


def test_a_part_that_cannot_be_imported_is_named_when_it_is_used_and_the_others_go_on(folder, capsys):
    install(folder, "broken", {"attack.Broken": "broken:Broken"}, {"broken.py": "raise RuntimeError('gone')\n"})
    told = refused(capsys, "fit", "--config=digits/madry", "--model.attack=Broken")
    assert "'broken.Broken' cannot be imported: RuntimeError: gone (" in told
    assert told.endswith("broken.py, line 1). The plugin broken 1.0 announces it.")
    printed(capsys, "fit", "--config=digits/madry", "--model.attack=StepOfPlugin")


def test_two_plugins_of_one_name(site, folder, capsys):
    modules = {"other/__init__.py": "from short_names.parts import StepOfPlugin\n"}
    modules |= {"other/configs/evaluation/strict.yaml": "name: other\n"}
    entries = {"attack.StepOfPlugin": "other:StepOfPlugin", "configs": "other.configs"}
    install(folder, "other", entries, modules, version="2.0")
    told = refused(capsys, "fit", "--config=digits/madry", "--model.attack=StepOfPlugin")
    write = "write other.StepOfPlugin (of other 2.0) or short_names.parts.StepOfPlugin (of short-names 0.3)."
    assert told.endswith(f"model > MadryTraining > attack: there are several of class 'StepOfPlugin': {write}")
    assert "other" not in sys.modules
    printed(capsys, "fit", "--config=digits/madry", "--model.attack=short_names.parts.StepOfPlugin")
    told = refused(capsys, "evaluate", "--config=evaluation/strict")
    assert f"write {folder}/other/configs/evaluation/strict.yaml (of other 2.0) or {site}/short_names" in told


def test_a_plugin_with_one_of_our_names(folder, capsys):
    entries = {"attack.IFGSM": "other:IFGSM", "callback.PGD": "other:PGD", "configs": "other.configs"}
    modules = {f"other/configs/{name}.yaml": "{}\n" for name in ("digits/standard", "evaluation/quick")}
    install(folder, "other", entries, modules)
    printed(capsys, "fit", "--config=digits/madry")  # a callback of that name is not meant where an attack is taken
    told = refused(capsys, "fit", "--config=digits/madry", "--model.attack=IFGSM")
    assert told.endswith("write lightning_adv.attacks.IFGSM or other.IFGSM (of other 1.0).")
    told = refused(capsys, "fit", "--config=digits/standard")
    assert "--config: there are several of configuration 'digits/standard': write " in told
    ours, theirs = told.partition("write ")[2].split(" or ")
    assert ours == find_config(ours)
    assert theirs == f"{folder}/other/configs/digits/standard.yaml (of other 1.0)."
    # What evaluate takes where nothing is named is this package's.
    assert "data must be given" in refused(capsys, "evaluate", "--backbone.name=small_cnn")


def test_a_network_of_a_plugin_with_one_of_our_names(folder):
    module = "import timm\n\n@timm.models.register_model\ndef registered(**kwargs): pass\n"
    entries = {f"network.{name}": f"networks_of_other:{name}" for name in ("small_cnn", "alexnet", "registered")}
    install(folder, "other", entries, {"networks_of_other.py": module})
    for name, ours in {"small_cnn": "timm/small_cnn", "alexnet": "torchvision/alexnet"}.items():
        told = rf"^name: .* write {ours} or networks_of_other\.{name} \(of other 1\.0\)\.$"
        with pytest.raises(UsageError, match=told):
            find_network(name)
        assert find_network(ours) == tuple(ours.split("/"))
    for _ in range(2):  # before and after it has registered itself
        assert find_network("registered") == ("python", "networks_of_other.registered")
        importlib.import_module("networks_of_other")


def test_a_function_that_a_plugin_announces_may_be_named_by_a_file_wherever_it_is_from(folder):
    module = {"borrowing.py": "from torchvision.models import resnet18, resnet34\n"}
    install(folder, "borrowing", {"network.borrowed": "borrowing:resnet18"}, module)
    check_named({"backbone": {"name": "borrowed"}, "source": {"name": "borrowing.resnet18"}})
    with pytest.raises(UsageError, match=r"'borrowing\.resnet34' is a function of a package that is not trusted"):
        check_named({"backbone": {"name": "borrowing.resnet34"}})


def test_which_plugins_took_part(folder, site):
    install(folder, "other", {"loss.A": "other.losses:A", "configs": "other.configs"},
            {"other/__init__.py": "", "other/configs/evaluation/mine.yaml": "{}\n"}, version="2.0")  # fmt: skip
    ours, theirs = {"class_path": "lightning_adv.attacks.PGD"}, {"class_path": "other.losses.A", "name": "short_names"}
    assert taking_part([1.5], ours) == {}
    assert taking_part([1.5], {"attack": ours, "losses": [theirs]}) == {"other": "2.0"}
    assert taking_part([], {"config": [Path(find_config("evaluation/mine"))]}) == {"other": "2.0"}
    derived = type("Derived", (type("Base", (), {"__module__": "short_names.parts"}),), {"__module__": "tests"})
    assert taking_part([derived()], theirs) == {"other": "2.0", "short-names": "0.3"}


@pytest.mark.slow
def test_a_plugin_is_named_by_what_is_made_of_its_run(folder):
    """Of its regime alone: the network is one of this package's."""
    quick = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_test_batches=1"]
    main(["fit", "--config=digits/madry", "--model.class_path=Plain", "--trainer.logger.save_dir=.",
          "--trainer.logger.name=run", "--trainer.logger.version=a", *quick])  # fmt: skip
    checkpoint = "--checkpoint=run/a/checkpoints/best.ckpt"
    main(["export", checkpoint, "--output=exported"])
    main(["evaluate", checkpoint, "--images=8", "--suspicion_images=0", "--attacks=[FGSM]", "--output=evaluated"])
    told = [json.loads(Path(file).read_text()) for file in ("run/a/results.json", "exported/model.json")]
    told.append(json.loads(Path("evaluated/evaluation.json").read_text())["settings"])
    assert [each["plugins"] for each in told] == [{"short-names": "0.3"}] * 3


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--model.attack=Unloaded", "'Unloaded' is announced as callback by short-names 0.3. It takes an Attack: APGD"),
        ("--model.attack=StepOfPlugan", "there is no class 'StepOfPlugan'. Did you mean 'StepOfPlugin'?"),
    ],
)
def test_a_name_that_does_not_fit(option, told, folder, capsys):
    assert told in refused(capsys, "fit", "--config=digits/madry", option)


def test_what_is_taken_names_the_parts_of_plugins_after_ours(folder, monkeypatch):
    monkeypatch.setattr(class_paths, "_LONGEST_LIST", 10**6)  # other tests have made classes too
    listed = class_paths.choices((Attack,)).partition("It takes an Attack: ")[2].rstrip(".").split(", ")
    assert listed.index("StAdv") < listed.index("StepOfPlugin")
