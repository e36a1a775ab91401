"""Lightning's own tools beside a regime: finders, callbacks, clipping, profilers, bars, and its CLI as a base."""

import csv
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import BatchSizeFinder, LambdaCallback, LearningRateFinder, TQDMProgressBar
from lightning.pytorch.tuner import Tuner

from lightning_adv.attacks import PGD
from lightning_adv.cli import AdversarialCLI, main
from lightning_adv.commands.shared.progress import Pace
from lightning_adv.data import DigitsDataModule
from lightning_adv.nn import Backbone
from lightning_adv.regimes import MadryTraining, StandardTraining
from tests.commands.shortened import FAST_ATTACK, SHORT, fit, results

CALLBACK = "--trainer.callbacks"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def weights(run, name="last"):
    return torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"]


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "digits/madry", *SHORT, *FAST_ATTACK, *arguments])
    assert end.value.code != 0
    return capsys.readouterr().err.strip().splitlines()[-1]


# Finders ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_finders_found_is_in_the_configuration_and_the_run_repeats_it(capsys):
    """The run is the one that its configuration describes, to the bit: nothing of the search is left in it."""
    run = fit(
        f"{CALLBACK}+=BatchSizeFinder", f"{CALLBACK}.max_trials=3", f"{CALLBACK}+=LearningRateFinder",
        f"{CALLBACK}.num_training_steps=30", "--model.init_args.attack.init_args.steps=1",
        "--trainer.limit_train_batches=1.0", "--trainer.max_epochs=1",
    )  # fmt: skip
    config = yaml.safe_load((run / "config.yaml").read_text())
    found = config["model"]["init_args"]["optimizer"]["init_args"]["lr"]
    assert 1e-8 < found < 1
    assert found != 0.05
    assert config["data"]["init_args"]["batch_size"] == 8  # 2, 4, 8
    assert config["trainer"]["callbacks"] == []
    told = capsys.readouterr().err
    assert f"LearningRateFinder: model.init_args.optimizer.init_args.lr is {found:.6g}, and was 0.05." in told
    assert "BatchSizeFinder: data.init_args.batch_size is 8, and was 64." in told
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["optimizer"]["init_args"]["lr"] == found
    assert saved["optimizer_states"][0]["param_groups"][0]["initial_lr"] == found

    main(["fit", "--config", str(run / "config.yaml")])
    again = run.parent / "version_1"
    assert_same(weights(run), weights(again))
    assert results(run)["robust_accuracy"] == results(again)["robust_accuracy"]


@pytest.mark.slow
def test_finder_and_a_checkpoint(capsys):
    run = fit("--trainer.max_epochs=1")
    line = refused(capsys, f"{CALLBACK}+=LearningRateFinder", f"--ckpt_path={run}/checkpoints/last.ckpt")
    assert "trainer.callbacks has LearningRateFinder, but the run that ckpt_path goes on with has what it found" in line


@pytest.mark.slow
def test_finder_that_finds_nothing(capsys):
    line = refused(capsys, f"{CALLBACK}+=LearningRateFinder", f"{CALLBACK}.num_training_steps=3")
    assert "trainer.callbacks: LearningRateFinder found nothing. A learning rate takes at least a dozen steps" in line


def test_finder_that_takes_no_step(capsys):
    line = refused(capsys, f"{CALLBACK}+=LearningRateFinder", f"{CALLBACK}.num_training_steps=0")
    assert "trainer.callbacks: LearningRateFinder.num_training_steps must be at least 1, got 0." in line


def test_finder_of_what_the_configuration_does_not_have(capsys):
    line = refused(capsys, f"{CALLBACK}+=LearningRateFinder", f"{CALLBACK}.attr_name=rate")
    assert "LearningRateFinder, and the configuration does not have model.init_args.rate: set it." in line


def regime(**options):
    seed_everything(0, verbose=False)
    backbone = Backbone("small_cnn", in_channels=1, options={"width": 8})
    attack = PGD(eps=0.1, steps=1)
    return MadryTraining(backbone, attack=attack, evaluation_attack=attack, num_classes=10, **options)


def quiet(**options):
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0, **options,
    )  # fmt: skip


@pytest.mark.slow
def test_tuner_sets_the_learning_rate_of_the_optimizer_and_changes_nothing_else():
    data = DigitsDataModule(batch_size=64)
    tuned = regime()
    before = {key: value.clone() for key, value in tuned.state_dict().items()}
    found = Tuner(quiet(max_epochs=5)).lr_find(tuned, datamodule=data, num_training=30, attr_name="optimizer_lr")
    assert tuned.optimizer_lr == pytest.approx(found.suggestion())
    assert_same({key: tuned.state_dict()[key] for key in before}, before)

    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=found.suggestion(), momentum=0.9, weight_decay=5e-4)

    by_hand = regime(optimizer=sgd)
    for module in (tuned, by_hand):
        seed_everything(0, verbose=False)
        quiet(max_epochs=1).fit(module, datamodule=data)
    assert_same(tuned.state_dict(), by_hand.state_dict())


@pytest.mark.slow
def test_finders_as_callbacks_of_a_trainer():
    module, data = regime(), DigitsDataModule(batch_size=64)
    finders = [BatchSizeFinder(max_trials=2), LearningRateFinder(num_training_steps=20, attr_name="optimizer_lr")]
    quiet(max_epochs=1, callbacks=finders).fit(module, datamodule=data)
    assert data.batch_size == finders[0].optimal_batch_size == 4
    assert module.optimizer_lr == module.optimizers().param_groups[0]["lr"] == finders[1].optimal_lr.suggestion()


# Callbacks --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_early_stopping_ends_the_run_and_the_best_is_tested():
    run = fit(
        f"{CALLBACK}+=EarlyStopping", f"{CALLBACK}.monitor=val/robust_accuracy", f"{CALLBACK}.mode=max",
        f"{CALLBACK}.patience=1", f"{CALLBACK}.min_delta=1.0", "--trainer.max_epochs=5",
    )  # fmt: skip
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 1  # one more than the first
    assert results(run)["checkpoint"]["path"] == "checkpoints/best.ckpt"


@pytest.mark.slow
def test_top_k_checkpoints_are_the_k_best():
    run = fit(
        f"{CALLBACK}+=ModelCheckpoint", f"{CALLBACK}.monitor=val/clean_loss", f"{CALLBACK}.mode=min",
        f"{CALLBACK}.save_top_k=2", "--trainer.max_epochs=4", "--model.init_args.optimizer.init_args.lr=0.3",
    )  # fmt: skip
    with (run / "metrics.csv").open(newline="") as file:
        losses = {
            int(row["step"]): float(row["val/clean_loss"]) for row in csv.DictReader(file) if row["val/clean_loss"]
        }
    kept = {int(path.stem.partition("step=")[2]) - 1 for path in (run / "checkpoints").glob("epoch=*.ckpt")}
    assert kept == set(sorted(losses, key=losses.get)[:2])


@pytest.mark.slow
def test_stochastic_weight_averaging_is_the_mean_of_the_epochs():
    """Lightning takes the weights as epochs begin: those of the checkpoints before. The last pass steps nothing."""
    run = fit(
        f"{CALLBACK}+=StochasticWeightAveraging", f"{CALLBACK}.swa_lrs=0.01", f"{CALLBACK}.swa_epoch_start=2",
        f"{CALLBACK}+=ModelCheckpoint", f"{CALLBACK}.save_top_k=-1", f"{CALLBACK}.every_n_epochs=1",
        "--trainer.max_epochs=3", "--model.init_args.optimizer.init_args.weight_decay=0.1",
        "--model.init_args.num_classes=10",
    )  # fmt: skip
    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    each = {path.stem[6]: torch.load(path, weights_only=True)["state_dict"] for path in run.glob("checkpoints/epoch*")}
    learned = [key for key in last["state_dict"] if key.endswith(("weight", "bias")) and "normalize" not in key]
    for key in learned:
        torch.testing.assert_close(last["state_dict"][key], (each["0"][key] + each["1"][key]) / 2)
    assert results(run)["test_images"] == 360


@pytest.mark.slow
def test_averaging_that_would_forget_statistics(capsys):
    swa = [f"{CALLBACK}+=StochasticWeightAveraging", f"{CALLBACK}.swa_lrs=0.01"]
    assert "before the data say how many classes there are: set model.init_args.num_classes" in refused(capsys, *swa)
    held = [*swa, "--model.init_args.num_classes=10", "--model.init_args.running_statistics_epochs=1"]
    assert "some of this regime are held in eval mode: they would be lost" in refused(capsys, *held)


@pytest.mark.slow
def test_timer_ends_the_run_and_its_checkpoint_is_data(caplog):
    duration = '{"seconds": 1}'
    run = fit(f"{CALLBACK}+=Timer", f"{CALLBACK}.duration={duration}", "--trainer.max_epochs=500")
    assert "Time limit reached" in caplog.text
    assert results(run)["test_images"] == 360
    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] < 3 * 500
    assert (
        yaml.safe_load((run / "config.yaml").read_text())["trainer"]["callbacks"][0]["init_args"]["interval"] == "step"
    )


@pytest.mark.slow
def test_accumulation_is_a_larger_batch_without_batchnorm():
    """Standard training of a network without BatchNorm: two batches of 32, accumulated, are one of 64."""

    def trained(batch_size, **options):
        seed_everything(0, verbose=False)
        sizes = {"img_size": 8, "patch_size": 2, "depth": 1, "embed_dim": 16, "num_heads": 2}
        backbone = Backbone("vit_tiny_patch16_224", in_channels=1, options=sizes)  # neither BatchNorm nor dropout
        module = StandardTraining(backbone, num_classes=10)
        quiet(max_steps=4, **options).fit(module, datamodule=DigitsDataModule(batch_size=batch_size))
        return module.state_dict()

    once, twice = trained(64), trained(32, accumulate_grad_batches=2)
    for key in once:
        torch.testing.assert_close(once[key], twice[key])


@pytest.mark.slow
def test_clipping_bounds_the_step():
    """SGD without momentum or decay moves by the learning rate times a gradient of norm 0.01 at most."""
    module = regime(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0))
    start = [value.detach().clone() for value in module.network.parameters()]
    quiet(max_steps=1, gradient_clip_val=0.01).fit(module, datamodule=DigitsDataModule(batch_size=64))
    moved = [after.detach() - before for after, before in zip(module.network.parameters(), start, strict=True)]
    assert torch.cat([each.flatten() for each in moved]).norm() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("profiler", ["simple", "advanced", "pytorch"])
def test_profilers(profiler, caplog):
    run = fit(f"--trainer.profiler={profiler}", "--trainer.max_epochs=1")
    assert "rofiler Report" in caplog.text or "Self CPU time total" in caplog.text
    assert results(run)["test_images"] == 360


# What is shown ----------------------------------------------------------------------------------------------------


class Shown(TQDMProgressBar):
    """Keeps what the bar shows after each batch."""

    def __init__(self):
        super().__init__()
        self.metrics = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.metrics.append((self.get_metrics(trainer, pl_module), outputs["loss"].item()))


def test_bar_shows_the_loss_of_the_step_and_the_accuracies_of_the_last_validation(capsys):
    bar = Shown()
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False, max_epochs=2,
        limit_train_batches=2, limit_val_batches=1, num_sanity_val_steps=0, callbacks=[bar],
    )  # fmt: skip
    trainer.fit(regime(), datamodule=DigitsDataModule(batch_size=32))
    assert len(bar.metrics) == 4
    for metrics, loss in bar.metrics:
        assert metrics["loss"] == pytest.approx(loss, abs=1e-3)
    assert {"val/clean_accuracy", "val/robust_accuracy"} <= bar.metrics[-1][0].keys()


@pytest.mark.slow
def test_piped_output_says_how_far_a_long_epoch_is(monkeypatch, capsys):
    monkeypatch.setattr(Pace, "FIRST", 0.0)
    monkeypatch.setattr(Pace, "EVERY", 0.0)
    fit("--trainer.enable_progress_bar=null", "--trainer.max_epochs=1")
    lines = capsys.readouterr().out.splitlines()
    said = [line.partition(",")[0] for line in lines if "batch" in line and "training batches" not in line]
    assert said == [
        *(f"epoch 1/1: batch {batch} of 3" for batch in (1, 2, 3)), "epoch 1/1",  # validation, within the epoch
        "test: batch 1 of 1",
    ]  # fmt: skip
    epoch = next(line for line in lines if line.startswith("epoch 1/1: train loss"))
    assert "val robust" in epoch
    assert any(line.startswith("epoch 1/1, validation: batch 1 of 1") for line in lines)


# A program of one's own -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cli_without_running_trains_as_the_command_does():
    options = ["--config", "digits/madry", *SHORT, *FAST_ATTACK]
    run = fit()
    cli = AdversarialCLI(options, run=False)
    assert list(run.parent.iterdir()) == [run]  # nothing is written before the Trainer fits
    cli.trainer.fit(cli.model, cli.datamodule)
    own = run.parent / "version_1"
    assert_same(weights(run), weights(own))
    configs = [yaml.safe_load((folder / "config.yaml").read_text()) for folder in (own, run)]
    assert configs[0] == {key: configs[1][key] for key in configs[0]}
    assert configs[1].keys() - configs[0].keys() == {"ckpt_path", "weights_only"}  # of the command alone


def test_a_program_of_ones_own_tells_mistakes_as_the_command_does(monkeypatch, capsys):
    """The command is that of the class, and a mistake is one line."""

    class Linked(AdversarialCLI):
        def before_instantiate_classes(self):
            super().before_instantiate_classes()
            print(f"{type(self).__name__} has parsed")

    line = ["fit", "--config", "digits/madry", "--model.init_args.attack.init_args.eps=-3"]
    monkeypatch.setattr("sys.argv", ["train.py", *line])
    with pytest.raises(SystemExit):
        main(line, cli=Linked)
    told = capsys.readouterr()
    assert told.out == "Linked has parsed\n"
    assert told.err.splitlines()[-1].startswith("lightning-adv: error: ")
    assert "eps must be between 0 and 1, got -3.0." in told.err
    assert "Traceback" not in told.err


@pytest.mark.slow
def test_subclass_adds_an_option_a_link_and_defaults(monkeypatch):
    class Linked(AdversarialCLI):
        def add_arguments_to_parser(self, parser):
            super().add_arguments_to_parser(parser)
            parser.add_argument("--images", type=int, default=16)
            parser.link_arguments("images", "data.init_args.batch_size")

        def before_fit(self):
            super().before_fit()
            self.began = True

    line = ["fit", "--config", "digits/madry", *SHORT, *FAST_ATTACK, "--images=8"]
    monkeypatch.setattr("sys.argv", ["train.py", *line])
    own = LambdaCallback()
    cli = Linked(trainer_defaults={"callbacks": own, "min_epochs": 1}, parser_kwargs={"prog": "train.py"})
    assert cli.began
    assert cli.datamodule.batch_size == 8
    assert own in cli.trainer.callbacks
    assert cli.trainer.min_epochs == 1
    assert results(Path(cli.trainer.log_dir))["test_images"] == 360
