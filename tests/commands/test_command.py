import functools
import json
import signal
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import AsyncCheckpointIO
from scipy.stats import binomtest

from lightning_adv.attacks import MIFGSM
from lightning_adv.callbacks import Throughput
from lightning_adv.cli import main
from lightning_adv.commands.fit.trainer_values import check_trainer
from lightning_adv.data import DigitsDataModule
from lightning_adv.regimes import MadryTraining, Regime, StandardTraining
from lightning_adv.regimes.sync_batchnorm import TimmSyncBatchNorm
from tests.commands.shortened import FAST_ATTACK, SHORT, fit, results
from tests.data.fake_folder import write_dataset
from tests.faults.told import refused


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run, for tests that leave it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("finished"))
        return fit().resolve()


def of_best(run):
    return ["--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]


# What a run leaves behind ---------------------------------------------------------------------------------------


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert found["data_seed"] == 0
    assert found["checkpoint"]["path"] == "checkpoints/best.ckpt"
    assert found["checkpoint"]["step"] == 3 * (found["checkpoint"]["epoch"] + 1)
    assert found["training"]["attack"]["name"] == "PGD-7"
    assert found["training"]["attack"]["init_args"]["eps"] == 0.2
    assert found["training"]["objective"]["class_path"].endswith("CrossEntropy")
    assert found["backbone"]["options"] == {"width": 32}
    assert found["threat_model"] == {"norm": "Linf", "eps": 0.2}


@pytest.mark.slow
def test_the_best_checkpoint_is_tested_and_the_last_is_not():
    """The learning rate grows so much after two epochs that the network forgets what it has learnt."""
    run = fit(
        "--trainer.max_epochs=4", "--trainer.limit_train_batches=10", "--trainer.limit_val_batches=1.0",
        "--trainer.limit_test_batches=1.0", "--model.init_args.scheduler.init_args={milestones: [2], gamma: 60}",
        config="digits/standard",
    )  # fmt: skip
    best, last = (torch.load(run / "checkpoints" / name, weights_only=True) for name in ("best.ckpt", "last.ckpt"))
    assert (best["epoch"], last["epoch"]) == (1, 3)
    found = results(run)
    assert found["checkpoint"] == {"path": "checkpoints/best.ckpt", "epoch": 1, "step": 20}
    data = DigitsDataModule()
    data.setup()
    (x, y), *_ = data.test_dataloader()
    correct = []
    for checkpoint in (best, last):
        regime = StandardTraining.load_from_checkpoint(run / "checkpoints" / "best.ckpt", weights_only=True).eval()
        regime.load_state_dict(checkpoint["state_dict"])
        with torch.no_grad():
            correct.append(int((regime(x).argmax(1) == y).sum()))
    assert correct[0] > correct[1] + 36
    assert len(y) == 360
    assert found["clean_accuracy"] == correct[0] / 360


@pytest.mark.slow
def test_nothing_that_is_loaded_may_run_code(monkeypatch):
    """Every file is read with ``weights_only=True``, said aloud: in fit, its test, a resumed fit, test and predict."""
    asked = []
    load = torch.load
    monkeypatch.setattr(
        torch, "load", lambda *args, **kwargs: asked.append(kwargs.get("weights_only")) or load(*args, **kwargs)
    )
    run = fit("--trainer.max_epochs=1")
    seen = [len(asked)]
    for command, name in (("fit", "last"), ("test", "best"), ("validate", "best"), ("predict", "best")):
        more = ["--trainer.max_epochs=2"] if command == "fit" else []
        path = run / "checkpoints" / f"{name}.ckpt"
        main([command, "--config", str(run / "config.yaml"), f"--ckpt_path={path}", *more])
        seen.append(len(asked))
    assert seen == sorted(set(seen)), "each of them loads something"
    assert asked == [True] * len(asked)


@pytest.mark.slow
def test_interrupted_run_has_no_results_and_can_go_on(monkeypatch):
    """Ctrl-C, in a run that was finished once and is trained for longer: the old results do not stay as if new."""
    run = fit("--last_checkpoint.every_n_train_steps=1")
    old = results(run)
    count = Throughput.on_train_batch_end

    def interrupted(self, trainer, *args):
        count(self, trainer, *args)
        if trainer.global_step == 8:
            raise KeyboardInterrupt

    resume = ["fit", "--config", str(run / "config.yaml"), f"--ckpt_path={run}/checkpoints/last.ckpt"]
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(Throughput, "on_train_batch_end", interrupted)
        with pytest.raises(SystemExit) as ended:
            main([*resume, "--trainer.max_epochs=4"])
    signal.signal(signal.SIGINT, handler)  # Lightning ignores it from then on
    assert ended.value.code == 130
    assert not (run / "results.json").exists()
    assert json.loads((run / "results-until-resume-1.json").read_text()) == old
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] in (7, 8)
    main([*resume, "--trainer.max_epochs=4"])
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 12
    assert results(run)["epochs"] == 4


@pytest.mark.slow
def test_no_test_images_no_results(capsys):
    run = fit("--trainer.limit_test_batches=0", "--trainer.max_epochs=1")
    assert not (run / "results.json").exists()
    assert (run / "checkpoints" / "best.ckpt").is_file()
    assert "robust accuracy" not in capsys.readouterr().out


@pytest.mark.slow
def test_sync_batchnorm_is_that_of_timm(monkeypatch):
    """The converter of torch loses timm's activations; a plugin of the user's stays."""
    trainers = []

    @functools.wraps(Trainer.fit)
    def seen(self, *_, **__):
        trainers.append(self)

    monkeypatch.setattr(Trainer, "fit", seen)
    plugins = "--trainer.plugins=lightning.pytorch.plugins.AsyncCheckpointIO"
    main(["fit", "--config", "digits/madry", "--trainer.fast_dev_run=true", "--trainer.sync_batchnorm=true", plugins])
    main(["fit", "--config", "digits/madry", "--trainer.fast_dev_run=true"])
    given, plain = (trainer._accelerator_connector for trainer in trainers)
    assert type(given._layer_sync) is TimmSyncBatchNorm
    assert type(given.checkpoint_io) is AsyncCheckpointIO
    assert plain._layer_sync is None


@pytest.mark.slow
def test_saved_config_repeats_the_run_to_the_same_numbers():
    first = fit("--model.init_args.attack.init_args.eps=50/255")
    main(["fit", "--config", str(first / "config.yaml")])
    second = first.with_name("version_1")
    for name in ("clean_accuracy", "robust_accuracy", "clean_loss", "robust_loss"):
        assert results(first)[name] == results(second)[name]
    weights = [torch.load(r / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for r in (first, second)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.slow
def test_test_and_validate_agree_with_the_end_of_fit(finished, capsys):
    run = finished
    main(["validate", *of_best(run)])
    assert "val/robust_accuracy" in capsys.readouterr().out
    assert main(["test", *of_best(run)]) is None
    again = results(run / "test" / "version_0")
    assert again["robust_accuracy"] == results(run)["robust_accuracy"]
    assert again["clean_loss"] == results(run)["clean_loss"]
    assert "training_seconds" not in again


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("logger", ["false", "lightning.pytorch.loggers.TensorBoardLogger"])
def test_every_run_has_its_folder_whatever_the_logger(logger):
    extra = [] if logger == "false" else ["--trainer.logger.init_args.save_dir=boards"]
    for version in range(2):
        fit(f"--trainer.logger={logger}", *extra, "--trainer.max_epochs=1")
        folder = Path(f"runs/run/version_{version}")
        found = {path.name for path in folder.iterdir()}
        assert {"config.yaml", "metrics.csv", "results.json", "checkpoints", "figures"} <= found
    assert Path("boards").exists() == bool(extra)


@pytest.mark.slow
def test_fast_dev_run_writes_nothing():
    main(["fit", "--config", "digits/madry", "--trainer.fast_dev_run=true", "--trainer.enable_progress_bar=false"])
    assert not Path("runs").exists()


# The front door -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_configs_are_found_by_name_with_an_equals_sign_and_short(capsys):
    for form in (["--config=digits/madry"], ["-c", "digits/madry"], ["--config", "configs/digits/madry.yaml"]):
        with pytest.raises(SystemExit):
            main(["fit", *form, "--print_config"])
        assert "small_cnn" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"view": "off"}, {"attack_precision": "bf16", "channels_last": "true"}])
def test_views_are_settings_of_a_run(settings):
    run = fit(*(f"--model.init_args.{name}={value}" for name, value in settings.items()))
    told = {"view": "auto", "attack_precision": "same"} | settings
    assert {name: results(run)["training"][name] for name in ("view", "attack_precision")} == {
        name: told[name] for name in ("view", "attack_precision")
    }
    written = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]
    assert all(str(written[name]).lower() == value for name, value in settings.items())


# Bad input: one clear error each, before training ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model.init_args.attack.init_args.eps=8"], ["eps must be between 0 and 1", "8/255"]),
        (["--model.init_args.backbone.name=resnet81"], ["backbone.name: 'resnet81'", "nearest"]),
        (["--model.init_args.backbone.in_channels=3"], ["in_channels is 3", "1 channels"]),
        (["--ckpt_path=missing.ckpt"], ["ckpt_path", "no file missing.ckpt"]),
        (["--config=digits/mardy"], ["digits/mardy", "Did you mean 'digits/madry'", "imagenet/(advprop, "]),
        (["--trainer.limit_test_batches=0.1"], ["limit_test_batches is 0.1, which is less than one batch of 1"]),
        (["--trainer.overfit_batches=0.1"], ["0.1 of the `val_dataloader`"]),
        (["--trainer.precision=bf16-true"], ["trainer.precision is bf16-true", "bf16-mixed"]),
        (["--data.init_args.batch_size=0"], ["batch_size", "0"]),
        (["--trainer.strategy=ddp_spawn"], ["trainer.strategy is 'ddp_spawn'", "use 'ddp'"]),
        (["--trainer.enable_checkpointing=false"], ["trainer.enable_checkpointing is false"]),
        (["--model.init_args.compile_view=graphs"], ["compile_view must be", "reduce-overhead", "'graphs'"]),
        (
            ["--model.init_args.attack_precision=bf16", "--trainer.precision=64-true"],
            ["attack_precision is bf16", "64-true"],
        ),
        (["--model.init_args.attack=null"], ["model > MadryTraining > attack: it is null", "PGD"]),
        (
            [
                "--model.init_args.scheduler=lightning.pytorch.cli.ReduceLROnPlateau",
                "--model.init_args.scheduler.init_args.monitor=val/clean_loss",
                "--model.init_args.scheduler_interval=step",
            ],
            ["scheduler_interval is 'step'", "use 'epoch'"],
        ),
    ],
)
def test_values_that_are_not_allowed(arguments, words):
    message = refused("fit", "--config", "digits/madry", *SHORT, *arguments)
    last = message.strip().splitlines()[-1]
    assert all(word in last for word in words), message
    assert not list(Path().glob("runs/*/*")), "a start that failed leaves no run folder"


@pytest.mark.parametrize(
    "strategy",
    [
        "ddp_notebook",
        "ddp_fork_find_unused_parameters_true",
        Namespace(class_path="lightning.pytorch.strategies.DDPStrategy", init_args=Namespace(start_method="spawn")),
    ],
)
def test_processes_that_end_with_the_training(strategy):
    with pytest.raises(ValueError, match="use 'ddp'"):
        check_trainer(Namespace(strategy=strategy, enable_checkpointing=None))


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_find_unused_parameters_true", "fsdp"])
def test_processes_that_stay(strategy):
    check_trainer(Namespace(strategy=strategy, enable_checkpointing=True))
    arguments = Namespace(find_unused_parameters=True, start_method="popen")
    check_trainer(Namespace(strategy=Namespace(init_args=arguments), enable_checkpointing=None))


@pytest.mark.slow
def test_data_folder_that_is_not_there():
    arguments = ["--config", "cifar10_folder/madry", *SHORT, "--data.init_args.root=nowhere"]
    message = refused("fit", *arguments)
    last = message.strip().splitlines()[-1]
    assert "data.root" in last
    assert "nowhere" in last


@pytest.mark.slow
def test_truncated_image_in_a_good_folder():
    root = write_dataset(Path("images"), classes=("cat", "dog"))
    broken = root / "train" / "cat" / "003.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    arguments = ["--config", "cifar10_folder/madry", *SHORT, f"--data.init_args.root={root}"]
    message = refused("fit", *arguments, "--data.init_args.val_fraction=0.2")
    assert str(Path("train") / "cat" / "003.png") in message.strip().splitlines()[-1]


@pytest.mark.slow
def test_checkpoint_that_is_no_checkpoint():
    Path("garbage.ckpt").write_bytes(b"not a checkpoint")
    arguments = ["fit", "--config", "digits/madry", *SHORT]
    message = refused(*arguments, "--model.init_args.backbone.checkpoint=garbage.ckpt")
    assert "backbone.checkpoint: garbage.ckpt cannot be read" in message
    message = refused(*arguments, "--ckpt_path=garbage.ckpt")
    assert "ckpt_path: garbage.ckpt cannot be read" in message
    torch.save({"weight": torch.ones(1)}, "weights.pth")
    message = refused(*arguments, "--ckpt_path=weights.pth")
    assert "weights.pth is not the checkpoint of a run" in message
    assert "backbone.checkpoint" in message


@pytest.mark.slow
def test_short_names_fractions_and_an_unquoted_true():
    Path("mine.yaml").write_text(
        "model: {class_path: MadryTraining, init_args: {\n"
        "  attack: {class_path: MIFGSM, init_args: {eps: 51/255, step_size: 12.75/255, steps: 2, label: true}}}}\n"
    )
    run = fit("--config", "mine.yaml", "--model.init_args.evaluation_attack.init_args.eps=51/255")
    regime = Regime.load_from_checkpoint(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert (type(regime), type(regime.attack)) == (MadryTraining, MIFGSM)
    assert (regime.attack.eps, regime.attack.step_size, regime.attack.label) == (0.2, 0.05, "true")
    assert regime.evaluation_attack.eps == 0.2
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["model"]["init_args"]["attack"]["init_args"]["eps"] == "51/255"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_run_folder_that_cannot_be_written(command):
    Path("file").touch()
    arguments = ["--config", "digits/madry", *SHORT, "--trainer.logger.init_args.save_dir=file/runs"]
    message = refused(command, *arguments)
    assert "run folder" in message
    assert "cannot be written" in message


@pytest.mark.slow
def test_refused_resume_leaves_the_run_as_it_was():
    run = fit("--trainer.max_steps=4")  # in the middle of the second epoch
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert {"results.json", "metrics.csv"} <= {path.name for path in before}
    resume = ["fit", "--config", "digits/madry", *SHORT, *FAST_ATTACK, f"--ckpt_path={run}/checkpoints/last.ckpt"]
    for wrong, words in (
        ("--model.init_args.backbone.options={width: 8}", ["of another network", "of another shape"]),
        ("--data.init_args.batch_size=32", ["data.batch_size", "in batches of 32"]),
    ):
        message = refused(*resume, wrong)
        assert all(word in message.strip().splitlines()[-1] for word in words), message
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert [path.name for path in run.parent.iterdir()] == ["version_0"]


@pytest.mark.slow
def test_nan_names_the_step_and_keeps_the_last_good_checkpoint():
    """The learning rate explodes in the second epoch; the first epoch's checkpoint stays and is finite."""
    message = refused(
        "fit", "--config", "digits/madry", *SHORT, *FAST_ATTACK, "--trainer.max_epochs=5",
        "--model.init_args.scheduler=torch.optim.lr_scheduler.StepLR",
        "--model.init_args.scheduler.init_args={step_size: 1, gamma: 1e30}",
    )  # fmt: skip
    assert "training loss is" in message
    assert "at step" in message
    last = torch.load("runs/digits-madry/version_0/checkpoints/last.ckpt", weights_only=True)
    assert last["epoch"] == 0
    assert all(torch.isfinite(value).all() for value in last["state_dict"].values())
