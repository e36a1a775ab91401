import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule
from scipy.stats import binomtest

from lightning_adv.attacks import PGD
from lightning_adv.cli import main
from lightning_adv.data import DigitsDataModule
from lightning_adv.regimes import MadryTraining, Regime
from tests.data.fake_folder import write_dataset
from tests.run.shortened import FAST_ATTACK, SHORT, fit, results


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def error_of(capsys, *arguments, status):
    """Run a command that fails; return what it prints on the standard error."""
    with pytest.raises(SystemExit) as exit_:
        main([*arguments])
    assert exit_.value.code == status
    return capsys.readouterr().err


# What a run leaves behind ---------------------------------------------------------------------------------------


def test_results_are_those_of_the_best_checkpoint(capsys):
    """Recomputed from the checkpoint without the command line, on the whole test set."""
    run = fit("--trainer.limit_test_batches=1.0", "--data.init_args.evaluation_batch_size=100")
    printed = capsys.readouterr().out
    found = results(run)
    regime = MadryTraining.load_from_checkpoint(run / "checkpoints" / "best.ckpt", weights_only=True).eval()
    data = DigitsDataModule(batch_size=64, evaluation_batch_size=100)
    data.setup()
    regime.seed = 0
    clean = robust = total = 0
    for index, (x, y) in enumerate(data.test_dataloader()):
        x_adv = regime.evaluation_attack(regime.network, x, y, generator=regime.noise("test", index))
        with torch.no_grad():
            clean += int((regime(x).argmax(1) == y).sum())
            robust += int((regime(x_adv).argmax(1) == y).sum())
        total += len(y)
    assert total == found["test_images"] == 360
    assert found["clean_accuracy"] == clean / 360
    assert found["robust_accuracy"] == robust / 360
    interval = binomtest(robust, 360).proportion_ci(0.95, method="wilson")
    assert found["robust_interval"] == pytest.approx([interval.low, interval.high])
    assert f"{100 * robust / 360:.1f} %" in printed
    assert "PGD-2 robust accuracy" in printed


def test_results_say_what_ran():
    found = results(fit("--seed_everything=5"))
    assert found["dataset"] == "digits"
    assert found["network"] == "small_cnn"
    assert found["regime"] == "MadryTraining"
    assert found["seed"] == 5
    assert found["epochs"] == 2
    assert found["versions"]["torch"] == torch.__version__
    assert found["evaluation_attack"]["init_args"]["eps"] == 0.2
    assert found["training_seconds"] > 0
    assert found["images_per_second"] > 0


def test_best_checkpoint_has_the_best_validation_metric():
    run = fit("--trainer.max_epochs=5", "--trainer.limit_val_batches=1.0", "--trainer.limit_train_batches=5")
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    robust = [(int(r["epoch"]), float(r["val/robust_accuracy"])) for r in rows if r.get("val/robust_accuracy")]
    assert len(robust) == 5
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == max(robust, key=lambda pair: pair[1])[0]


def test_saved_config_repeats_the_run_to_the_same_numbers():
    first = fit("--model.init_args.attack.init_args.eps=50/255")
    main(["fit", "--config", str(first / "config.yaml")])
    second = first.with_name("version_1")
    for name in ("clean_accuracy", "robust_accuracy", "clean_loss", "robust_loss"):
        assert results(first)[name] == results(second)[name]
    weights = [torch.load(r / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for r in (first, second)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_test_command_agrees_with_the_end_of_fit():
    run = fit()
    arguments = ["--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]
    assert main(["test", *arguments]) is None
    again = results(run.with_name("version_1"))
    assert again["robust_accuracy"] == results(run)["robust_accuracy"]
    assert again["clean_loss"] == results(run)["clean_loss"]
    assert "training_seconds" not in again


def test_fit_reports_the_weights_that_it_saved_with_averaging_too():
    """Lightning's EMA keeps the averaged weights in the checkpoint, and puts others in their place when it loads."""
    callbacks = "{class_path: lightning.pytorch.callbacks.EMAWeightAveraging, init_args: {decay: 0.9}}"
    Path("ema.yaml").write_text(f"trainer: {{callbacks: [{callbacks}]}}\n")
    run = fit("--config", "ema.yaml", "--trainer.max_epochs=3")
    regime = MadryTraining.load_from_checkpoint(run / "checkpoints" / "best.ckpt", weights_only=True).eval()
    data = DigitsDataModule()
    data.setup()
    x, y = next(iter(data.test_dataloader()))
    with torch.no_grad():
        correct = int((regime(x).argmax(1) == y).sum())
    assert results(run)["clean_accuracy"] == correct / len(y)


def test_predictions_are_a_table():
    run = fit()
    arguments = ["--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]
    main(["predict", *arguments])
    with (run.with_name("version_1") / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 360
    for row in rows:
        probabilities = [float(row[f"probability_{k}"]) for k in range(10)]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert probabilities.index(max(probabilities)) == int(row["predicted"])


def test_validate_command(capsys):
    run = fit()
    main(["validate", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "best.ckpt")])
    assert "val/robust_accuracy" in capsys.readouterr().out


def test_fractions_wherever_a_distance_is():
    run = fit(
        "--model.init_args.attack.init_args.eps=51/255",
        "--model.init_args.attack.init_args.step_size=12.75/255",
        "--model.init_args.evaluation_attack.init_args.eps=51/255",
    )
    regime = MadryTraining.load_from_checkpoint(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert (regime.attack.eps, regime.attack.step_size, regime.evaluation_attack.eps) == (0.2, 0.05, 0.2)
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["model"]["init_args"]["attack"]["init_args"]["eps"] == "51/255"


def test_attack_and_regime_by_short_name():
    run = fit(
        "--model.init_args.attack=MIFGSM",
        "--model.init_args.attack.init_args.eps=0.1",
        "--model.init_args.attack.init_args.steps=2",
    )
    regime = LightningModule.load_from_checkpoint(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert type(regime) is MadryTraining
    assert type(regime.attack).__name__ == "MIFGSM"
    assert isinstance(regime.attack, PGD)
    with pytest.raises(ValueError, match="Regime is the base of the regimes"):
        Regime.load_from_checkpoint(run / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("logger", ["false", "lightning.pytorch.loggers.TensorBoardLogger"])
def test_every_run_has_its_folder_whatever_the_logger(logger):
    extra = [] if logger == "false" else ["--trainer.logger.init_args.save_dir=boards"]
    for version in range(2):
        fit(f"--trainer.logger={logger}", *extra, "--trainer.max_epochs=1")
        folder = Path(f"runs/run/version_{version}")
        found = {path.name for path in folder.iterdir()}
        assert {"config.yaml", "metrics.csv", "results.json", "checkpoints", "figures"} <= found
    assert Path("boards").exists() == bool(extra)


def test_fast_dev_run_writes_nothing():
    main(["fit", "--config", "digits/madry", "--trainer.fast_dev_run=true", "--trainer.enable_progress_bar=false"])
    assert not Path("runs").exists()


# The front door -------------------------------------------------------------------------------------------------


def test_help_imports_neither_torch_nor_lightning():
    code = (
        "import sys; from lightning_adv.cli import main; main(['--help']); "
        "assert not {'torch', 'lightning', 'jsonargparse', 'matplotlib'} & set(sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    for word in ("fit", "validate", "test", "predict", "digits/madry"):
        assert word in out


def test_configs_are_found_by_name_with_an_equals_sign_and_short(capsys):
    for form in (["--config=digits/madry"], ["-c", "digits/madry"], ["--config", "configs/digits/madry.yaml"]):
        with pytest.raises(SystemExit):
            main(["fit", *form, "--print_config"])
        assert "small_cnn" in capsys.readouterr().out


# Bad input: one clear error each, before training ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trainer.max_epoch=3"], ["'trainer.max_epoch'", "Did you mean 'trainer.max_epochs'"]),
        (["--trainer.max_epochs=abc"], ["trainer.max_epochs", "type int", "abc"]),
        (["--model.init_args.atack=3"], ["MadryTraining", "no option 'atack'", "Did you mean 'attack'"]),
        (["--model.init_args.attack.init_args.epss=0.1"], ["attack > PGD", "'epss'", "Did you mean 'eps'"]),
        (["--model=MadryTrainin"], ["no class 'MadryTrainin'", "Did you mean 'MadryTraining'"]),
        (["--model.init_args.attack=PDG"], ["no class 'PDG'", "Did you mean 'PGD'"]),
        (["--data=DigitDataModule"], ["no class 'DigitDataModule'", "Did you mean 'DigitsDataModule'"]),
        (["--model.init_args.attack.init_args.start=normal"], ["start", "'uniform', 'zero'", "normal"]),
    ],
)
def test_arguments_that_do_not_parse(capsys, arguments, words):
    message = error_of(capsys, "fit", "--config", "digits/madry", *arguments, status=2)
    assert all(word in message for word in words), message
    assert len(message.splitlines()) <= 3
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model.init_args.attack.init_args.eps=-0.1"], ["eps must be between 0 and 1, got -0.1"]),
        (["--model.init_args.attack.init_args.eps=8"], ["eps must be between 0 and 1", "8/255"]),
        (["--model.init_args.attack.init_args.eps=8/255th"], ["eps must be a number or a fraction", "'8/255th'"]),
        (["--model.init_args.attack.init_args.norm=l3"], ["norm must be one of linf, l2, l1", "'l3'"]),
        (["--model.init_args.backbone.name=resnet81"], ["backbone.name 'resnet81'", "nearest"]),
        (["--model.init_args.backbone.in_channels=3"], ["in_channels is 3", "1 channels"]),
        (["--model.init_args.num_classes=7"], ["num_classes is 7", "10 classes"]),
        (["--ckpt_path=missing.ckpt"], ["ckpt_path", "no file missing.ckpt"]),
        (["--ckpt_path=last"], ["ckpt_path", "no file last"]),
        (["--config=digits/mardy"], ["digits/mardy", "Did you mean digits/madry", "imagenet/madry"]),
        (["--trainer.precision=bf16-true"], ["trainer.precision is bf16-true", "bf16-mixed"]),
        (["--data.init_args.batch_size=0"], ["batch_size", "0"]),
    ],
)
def test_values_that_are_not_allowed(capsys, arguments, words):
    message = error_of(capsys, "fit", "--config", "digits/madry", *SHORT, *arguments, status=1)
    last = message.strip().splitlines()[-1]
    assert all(word in last for word in words), message
    assert "Traceback" not in message


def test_data_folder_that_is_not_there(capsys):
    arguments = ["--config", "cifar10_folder/madry", *SHORT, "--data.init_args.root=nowhere"]
    message = error_of(capsys, "fit", *arguments, status=1)
    last = message.strip().splitlines()[-1]
    assert "data.root" in last
    assert "nowhere" in last
    assert "Traceback" not in message


def test_truncated_image_in_a_good_folder(capsys):
    root = write_dataset(Path("images"), classes=("cat", "dog"))
    broken = root / "train" / "cat" / "003.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    arguments = ["--config", "cifar10_folder/madry", *SHORT, f"--data.init_args.root={root}"]
    message = error_of(capsys, "fit", *arguments, "--data.init_args.val_fraction=0.2", status=1)
    assert str(Path("train") / "cat" / "003.png") in message.strip().splitlines()[-1]


def test_checkpoint_that_is_no_checkpoint(capsys):
    Path("garbage.ckpt").write_bytes(b"not a checkpoint")
    arguments = ["fit", "--config", "digits/madry", *SHORT]
    message = error_of(capsys, *arguments, "--model.init_args.backbone.checkpoint=garbage.ckpt", status=1)
    assert "backbone.checkpoint: garbage.ckpt cannot be read" in message
    message = error_of(capsys, *arguments, "--ckpt_path=garbage.ckpt", status=1)
    assert "ckpt_path: garbage.ckpt cannot be read" in message
    torch.save({"weight": torch.ones(1)}, "weights.pth")
    message = error_of(capsys, *arguments, "--ckpt_path=weights.pth", status=1)
    assert "weights.pth is not the checkpoint of a run" in message
    assert "backbone.checkpoint" in message


def test_misspelled_key_in_a_file(capsys):
    Path("mine.yaml").write_text("trainer: {max_epoch: 3}\n")
    message = error_of(capsys, "fit", "--config", "digits/madry", "--config", "mine.yaml", status=2)
    assert "Did you mean 'trainer.max_epochs'" in message


def test_unquoted_true_is_the_true_label():
    Path("mine.yaml").write_text(
        "model: {class_path: MadryTraining, init_args: {attack: {init_args: {label: true}}}}\n"
    )
    run = fit("--config", "mine.yaml")
    assert MadryTraining.load_from_checkpoint(run / "checkpoints/last.ckpt", weights_only=True).attack.label == "true"


def test_run_folder_that_cannot_be_written(capsys):
    Path("file").touch()
    arguments = ["--config", "digits/madry", *SHORT, "--trainer.logger.init_args.save_dir=file/runs"]
    message = error_of(capsys, "fit", *arguments, status=1)
    assert "run folder" in message
    assert "cannot be written" in message


def test_checkpoint_of_another_network_leaves_the_run_as_it_was(capsys):
    run = fit()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.suffix != ".csv"}
    message = error_of(
        capsys, "fit", "--config", "digits/madry", *SHORT, *FAST_ATTACK,
        "--model.init_args.backbone.options={width: 8}", f"--ckpt_path={run}/checkpoints/last.ckpt", status=1,
    )  # fmt: skip
    assert "ckpt_path: the checkpoint is of another network" in message
    assert "of another shape" in message
    assert all(path.read_bytes() == content for path, content in before.items())


def test_nan_names_the_step_and_keeps_the_last_good_checkpoint(capsys):
    """The learning rate explodes in the second epoch; the first epoch's checkpoint stays and is finite."""
    message = error_of(
        capsys, "fit", "--config", "digits/madry", *SHORT, *FAST_ATTACK, "--trainer.max_epochs=5",
        "--model.init_args.scheduler=torch.optim.lr_scheduler.StepLR",
        "--model.init_args.scheduler.init_args={step_size: 1, gamma: 1e30}",
        status=1,
    )  # fmt: skip
    assert "training loss is" in message
    assert "at step" in message
    last = torch.load("runs/digits-madry/version_0/checkpoints/last.ckpt", weights_only=True)
    assert last["epoch"] == 0
    assert all(torch.isfinite(value).all() for value in last["state_dict"].values())


def test_library_errors_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(json, "dumps", lambda *_, **__: (_ for _ in ()).throw(ValueError("not ours")))
    with pytest.raises(ValueError, match="not ours"):
        fit()
