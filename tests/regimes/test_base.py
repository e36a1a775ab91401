from dataclasses import replace
from functools import partial
from unittest.mock import patch

import pytest
import torch

from lightning_adv.attacks import APGD, FGSM, PGD, AutoAttack, RandomNoise
from lightning_adv.nn.backbones import Backbone
from lightning_adv.regimes import AdvPropTraining, MadryTraining, Regime, StandardTraining
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, quiet_trainer


def regime(**kwargs):
    sgd = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    return MadryTraining(BACKBONE, attack=ATTACK, evaluation_attack=ATTACK, optimizer=sgd, **kwargs)


class OwnLoss(Regime):
    """What is minimised, and nothing else."""

    def loss(self, x, y):
        return self.criterion(self(self.attacked(ATTACK, x, y)), y)


class OwnStep(Regime):
    """A regime of version 0.1, which writes the whole step."""

    def training_step(self, batch, batch_idx):
        x, y = self.check_batch(batch, batch_idx)
        x_adv = self.attacked(ATTACK, x, y, generator=self.noise("train", batch_idx))
        return self.check_loss(self.criterion(self(x_adv), y))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [OwnLoss, OwnStep])
def test_a_regime_of_ones_own_trains_as_ours_does(tmp_path, kind):
    """To the bit, noise and logged loss included."""
    ends = []
    for made in (kind, partial(MadryTraining, attack=ATTACK)):
        torch.manual_seed(0)
        module = made(BACKBONE, evaluation_attack=ATTACK)
        trainer = quiet_trainer(tmp_path, max_epochs=2)
        trainer.fit(module, ToyData())
        ends.append((module.state_dict(), trainer.callback_metrics))
    for first, second in zip(*ends, strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_property_that_fails_says_where():
    class Faulty(OwnLoss):
        @property
        def monitor(self):
            return self.backbone.nothing_of_the_kind

    module = Faulty(BACKBONE)
    with pytest.raises(AttributeError, match="'Backbone' object has no attribute 'nothing_of_the_kind'") as told:
        module.monitor  # noqa: B018
    assert told.traceback[-1].name == "monitor"
    with pytest.raises(AttributeError, match="'Faulty' object has no attribute 'missing'"):
        module.missing  # noqa: B018


def test_a_regime_that_says_nothing_of_its_loss_is_refused_before_training(tmp_path):
    class Empty(Regime):
        pass

    with pytest.raises(ValueError, match=r"^Empty must say what it minimises, by a method loss\(self, x, y\)"):
        quiet_trainer(tmp_path, num_sanity_val_steps=0).fit(Empty(BACKBONE), ToyData())


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (lambda loss: None, "a NoneType"),
        (lambda loss: loss.item(), "a float"),
        (lambda loss: loss.expand(3), r"torch.float32 of shape \(3,\)"),
        (lambda loss: loss.detach(), "a tensor that is detached from the network"),
    ],
)
def test_what_a_loss_must_return(tmp_path, given, got):
    class Other(OwnLoss):
        def loss(self, x, y):
            return given(super().loss(x, y))

    with pytest.raises(TypeError, match=rf"^Other.loss must return a tensor of one number with a gradient, got {got}"):
        quiet_trainer(tmp_path).fit(Other(BACKBONE, evaluation_attack=ATTACK), ToyData())


@pytest.mark.slow
def test_each_attack_of_a_step_draws_noise_of_its_own(tmp_path):
    found = []

    class Twice(OwnLoss):
        def loss(self, x, y):
            found.append([self.attacked(RandomNoise(0.1), x, y) for _ in range(2)])
            return super().loss(x, y)

    quiet_trainer(tmp_path, limit_train_batches=1, limit_val_batches=0).fit(Twice(BACKBONE), ToyData())
    assert not torch.equal(*found[0])


@pytest.mark.slow
def test_classes_come_from_the_data(tmp_path):
    module = regime()
    quiet_trainer(tmp_path).fit(module, ToyData())
    assert module(torch.rand(3, 1, 8, 8)).shape == (3, 2)
    assert module.num_classes == 2


def test_classes_must_be_known(tmp_path):
    loader = ToyData().train_dataloader()
    with pytest.raises(ValueError, match="num_classes must be given"):
        quiet_trainer(tmp_path).fit(regime(), loader)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda: regime(num_classes=5), "num_classes is 5, but ToyData has 2 classes"),
        (lambda: StandardTraining(Backbone("small_cnn", in_channels=3)), "in_channels is 3, but .* have 1 channels"),
        (
            lambda: StandardTraining(Backbone("vit_tiny_patch16_224", in_channels=1)),
            r"'vit_tiny_patch16_224' does not take the images of ToyData, of shape \(1, 8, 8\)",
        ),
    ],
)
def test_data_of_another_network(tmp_path, module, message):
    with pytest.raises(ValueError, match=message):
        quiet_trainer(tmp_path).fit(module(), ToyData())


class Answers(torch.nn.Module):
    """Gives what ``form`` makes of the logits and of whether it trains."""

    def __init__(self, network, form):
        super().__init__()
        self.network, self.form = network, form

    def forward(self, x):
        return self.form(self.network(x), self.training)


@pytest.mark.slow
@pytest.mark.parametrize("make", [StandardTraining, MadryTraining, AdvPropTraining])
@pytest.mark.parametrize(
    ("form", "got"),
    [
        (lambda z, _: (z, z), "a tuple of 2"),
        (lambda z, _: {"logits": z}, "a dict with the keys logits"),
        (lambda z, training: (z, z) if training else z, "a tuple of 2"),
    ],
    ids=["tuple", "mapping", "auxiliary"],
)
def test_networks_that_give_more_than_logits(tmp_path, make, form, got):
    """Also one that does so in training only, as Inception with its auxiliary classifiers."""

    class Own(make):
        def build_network(self, num_classes):
            return Answers(super().build_network(num_classes), form)

    module = Own(BACKBONE, evaluation_attack=ATTACK, **({} if make is StandardTraining else {"attack": ATTACK}))
    with pytest.raises(ValueError, match=rf"network must give logits .*, got {got}: wrap it"):
        quiet_trainer(tmp_path).fit(module, ToyData())


@pytest.mark.parametrize("place", ["attack", "evaluation_attack"])
def test_a_package_that_an_attack_needs_is_missed_before_training(tmp_path, monkeypatch, place):
    module = MadryTraining(BACKBONE, **{"attack": ATTACK, "evaluation_attack": ATTACK} | {place: AutoAttack(eps=0.1)})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package pyautoattack.*pip install 'lightning-adv\[eval\]'"):
        quiet_trainer(tmp_path).fit(module, ToyData())


@pytest.mark.slow
def test_apgd_and_autoattack_evaluate_a_regime(tmp_path):
    """Robust accuracies of the same network: AutoAttack begins with APGD."""
    found = {}
    for attack in (APGD(eps=0.1, steps=3), AutoAttack(eps=0.1, attacks=["apgd-ce"])):
        torch.manual_seed(0)
        module = StandardTraining(BACKBONE, evaluation_attack=attack)
        (tested,) = quiet_trainer(tmp_path).test(module, ToyData(), verbose=False)
        found[type(attack).__name__] = tested
    assert found["AutoAttack"]["test/clean_accuracy"] == found["APGD"]["test/clean_accuracy"]
    assert found["AutoAttack"]["test/robust_accuracy"] <= found["APGD"]["test/robust_accuracy"]
    assert found["AutoAttack"]["test/robust_accuracy"] <= found["AutoAttack"]["test/clean_accuracy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing must lie in \[0, 1\), got 1.0"),
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"scheduler_interval": "batch"}, "scheduler_interval must be one of epoch, step, got 'batch'"),
        ({"running_statistics_epochs": -1}, "running_statistics_epochs must be at least 0, got -1"),
        ({"eps_warmup_epochs": -1}, "eps_warmup_epochs must be at least 0, got -1"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        regime(**arguments)


@pytest.mark.parametrize("make", [StandardTraining, MadryTraining])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.rand(32, 1, 8, 8) * 255, None, r"x must lie in \[0, 1\], got values from"),
        (torch.full((32, 1, 8, 8), float("nan")), None, r"x must lie in \[0, 1\]"),
        (torch.rand(32, 3, 8, 8), None, r"x must be images \(N, 1, H, W\)"),
        (None, torch.arange(32) % 3, r"y must lie in \[0, 2\), got labels from 0 to 2"),
        (None, torch.rand(32), "y must be integer labels"),
    ],
)
def test_bad_batches_stop_training_before_it_starts(tmp_path, make, x, y, message):
    data = ToyData(torch.rand(32, 1, 8, 8) if x is None else x, torch.arange(32) % 2 if y is None else y)
    module = make(BACKBONE, num_classes=2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        quiet_trainer(tmp_path, num_sanity_val_steps=0, limit_val_batches=0).fit(module, data)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_validation_measures_what_the_network_does(tmp_path):
    """The four metrics against a plain loop over the whole set, with a batch that is not full."""
    data = ToyData(batch_size=12)
    module = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=FGSM(eps=0.1))
    (metrics,) = quiet_trainer(tmp_path).validate(module, data, verbose=False)
    module.eval()
    x_adv = FGSM(eps=0.1)(module.network, data.x, data.y)
    for kind, images in (("clean", data.x), ("robust", x_adv)):
        with torch.no_grad():
            probabilities = module(images).double().softmax(1)
        correct = sum(int(p.argmax()) == int(y) for p, y in zip(probabilities, data.y, strict=True))
        loss = sum(-p[y].log().item() for p, y in zip(probabilities, data.y, strict=True)) / 32
        assert metrics[f"val/{kind}_accuracy"] == pytest.approx(correct / 32)
        assert metrics[f"val/{kind}_loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
def test_checkpoint_does_not_fetch_the_first_weights_again(tmp_path):
    weights = tmp_path / "first.pth"
    torch.save(BACKBONE.build(2).state_dict(), weights)
    options = {"mean": [0.5], "std": [0.5], "options": {"width": 4}}
    module = StandardTraining(Backbone("small_cnn", in_channels=1, checkpoint=str(weights), **options), num_classes=2)
    trainer = quiet_trainer(tmp_path)
    trainer.fit(module, ToyData())
    trainer.save_checkpoint(tmp_path / "regime.ckpt")
    weights.unlink()
    loaded = StandardTraining.load_from_checkpoint(tmp_path / "regime.ckpt", weights_only=True)
    assert torch.equal(loaded.network.network.fc.weight, module.network.network.fc.weight)


@pytest.mark.slow
def test_checkpoint_of_another_network(tmp_path):
    trainer = quiet_trainer(tmp_path)
    trainer.fit(regime(), ToyData())
    trainer.save_checkpoint(tmp_path / "regime.ckpt")
    other = MadryTraining(Backbone("small_cnn", in_channels=1, options={"width": 8}), num_classes=2)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match="ckpt_path: the checkpoint is of another network"):
        quiet_trainer(tmp_path).fit(other, ToyData(), ckpt_path=tmp_path / "regime.ckpt", weights_only=True)
    for name, value in other.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.slow
def test_a_run_of_another_regime_or_activation_is_not_gone_on_with(tmp_path):
    """The keys of the network are the same each time."""
    trainer = quiet_trainer(tmp_path)
    trainer.fit(regime(), ToyData())
    path = tmp_path / "madry.ckpt"
    trainer.save_checkpoint(path)
    other = StandardTraining(BACKBONE)
    with pytest.raises(ValueError, match=r"this is a run of MadryTraining, and model.class_path is StandardTraining"):
        quiet_trainer(tmp_path, max_epochs=2).fit(other, ToyData(), ckpt_path=path, weights_only=True)
    smooth = MadryTraining(replace(BACKBONE, activation="silu"))
    with pytest.raises(ValueError, match=r"trained with the activation of its architecture, and .* is silu"):
        quiet_trainer(tmp_path).test(smooth, ToyData(), ckpt_path=path, weights_only=True)
    with pytest.raises(ValueError, match=r"this is a run of MadryTraining, and model.class_path is StandardTraining"):
        quiet_trainer(tmp_path).test(other, ToyData(), ckpt_path=path, weights_only=True)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_precision_that_rounds_the_attack_away(tmp_path, precision):
    with pytest.raises(ValueError, match=f"trainer.precision is {precision}"):
        quiet_trainer(tmp_path, precision=precision).fit(regime(), ToyData())


@pytest.mark.parametrize("make", [StandardTraining, MadryTraining])
def test_nan_stops_training_and_keeps_the_weights(tmp_path, make):
    """The first step makes the weights so large that the second loss is no number."""
    explode = partial(torch.optim.SGD, lr=1e30)
    module = make(BACKBONE, num_classes=2, optimizer=explode)
    trainer = quiet_trainer(tmp_path, max_epochs=5, num_sanity_val_steps=0, limit_val_batches=0)
    with pytest.raises(FloatingPointError, match=r"training loss is .* at step \d+ \(epoch \d+\)"):
        trainer.fit(module, ToyData())


def test_noise_depends_on_run_stage_batch_and_process_and_in_training_on_the_epoch():
    module = regime(num_classes=2)

    def seed(stage, batch, epoch=0, rank=0, run=3):
        module.seed = run
        where = "lightning_adv.regimes.MadryTraining"
        with patch(f"{where}.current_epoch", epoch), patch(f"{where}.global_rank", rank):
            return module.noise(stage, batch).initial_seed()

    others = [seed("val", 0), seed("train", 1), seed("train", 0, epoch=1), seed("train", 0, rank=1)]
    others.append(seed("train", 0, run=4))
    assert len({seed("train", 0), seed("train", 0), *others}) == 6
    assert seed("val", 0, epoch=1) == seed("val", 0) != seed("val", 0, rank=1)


@pytest.mark.slow
def test_label_smoothing_is_for_training_alone(tmp_path):
    """Validation and test report the plain cross-entropy."""
    module = StandardTraining(BACKBONE, num_classes=2, label_smoothing=0.5)
    trainer = quiet_trainer(tmp_path, num_sanity_val_steps=0)
    trainer.fit(module, ToyData())
    data = ToyData()
    with torch.no_grad():
        plain = torch.nn.functional.cross_entropy(module.network.eval()(data.x), data.y)
    assert trainer.callback_metrics["val/clean_loss"].item() == pytest.approx(plain.item(), rel=1e-5)


def test_evaluation_attack_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="Expected a Attack or its class_path"):
        StandardTraining(BACKBONE, num_classes=2, evaluation_attack=3)


def test_default_evaluation_is_the_papers():
    attack = StandardTraining(BACKBONE, num_classes=2).evaluation_attack
    assert (attack.eps, attack.steps, attack.step_size) == (8 / 255, 20, 1 / 255)
    assert isinstance(attack, PGD)


def test_a_last_batch_of_one_image_says_what_to_do(tmp_path):
    """A ResNet with a CIFAR stem makes 1×1 features of images of 8×8."""
    backbone = Backbone("test_resnet", in_channels=1)
    data = ToyData(y=torch.arange(9) % 2, batch_size=8)
    with pytest.raises(ValueError, match=r"^A training batch of 1 image ends .* batch_size .*drop_last=True"):
        quiet_trainer(tmp_path, limit_val_batches=0).fit(StandardTraining(backbone, num_classes=2), data)


def test_a_regime_that_logs_no_loss_has_none(tmp_path):
    class Silent(StandardTraining):
        def training_step(self, batch, batch_idx):
            x, y = self.check_batch(batch, batch_idx)
            return self.criterion(self(x), y)

    trainer = quiet_trainer(tmp_path)
    trainer.fit(Silent(BACKBONE, evaluation_attack=ATTACK), ToyData())
    assert "train/loss" not in trainer.callback_metrics
