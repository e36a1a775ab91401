"""AdvProp against algorithm 2 with two plain networks that share every weight but the BatchNorms'."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.attacks import FGSM, GD, IFGSM, PGD
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import domain
from lightning_adv.regimes import AdvPropTraining, AutoAugment, advprop_attack
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, attacked_by_hand, quiet_trainer, trained_by_hand

SGD = partial(torch.optim.SGD, lr=0.1)


def twins(module):
    """The module's network as two plain networks, main and auxiliary, whose other layers are the same objects."""
    main, auxiliary = BACKBONE.build(2), BACKBONE.build(2)
    for network in (main, auxiliary):
        # at the start both domains are copies of one network
        state = module.network.state_dict()
        network.load_state_dict({name: state.get(name, state.get(_of(name))) for name in network.state_dict()})
    for name, layer in main.named_modules():
        if not isinstance(layer, _BatchNorm) and not list(layer.children()) and name:
            auxiliary.set_submodule(name, layer)
    return main, auxiliary


def _of(name):
    parent, _, leaf = name.rpartition(".")
    return f"{parent}.norms.main.{leaf}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fraction", "pairing", "reduction"),
    [(1.0, 0.0, "sum"), (1.0, 0.5, "mean"), (0.5, 0.0, "mean"), (0.25, 0.5, "sum")],
)
def test_one_epoch_against_algorithm_2(tmp_path, fraction, pairing, reduction):
    module = AdvPropTraining(
        BACKBONE, num_classes=2, attack=FGSM(eps=0.1), optimizer=SGD, clean_fraction=fraction, logit_pairing=pairing,
        reduction=reduction,
    )  # fmt: skip
    main, auxiliary = twins(module)
    quiet_trainer(tmp_path, limit_val_batches=0).fit(module, ToyData())
    clean = int(8 * fraction)

    def loss(x, y):
        x_adv = attacked_by_hand(auxiliary, x, y)
        clean_logits, adversarial_logits = main.train()(x[:clean]), auxiliary(x_adv)
        losses = F.cross_entropy(clean_logits, y[:clean]), F.cross_entropy(adversarial_logits, y)
        total = sum(losses) if reduction == "sum" else (losses[0] * clean + losses[1] * 8) / (clean + 8)
        return total + pairing * ((clean_logits - adversarial_logits[:clean]) ** 2).mean()

    trained_by_hand(list(dict.fromkeys([*main.parameters(), *auxiliary.parameters()])), loss)
    state = module.network.state_dict()
    for twin, name_of_domain in ((main, "main"), (auxiliary, "adversarial")):
        for name, value in twin.state_dict().items():
            trained = state.get(name, state.get(_of(name).replace(".norms.main.", f".norms.{name_of_domain}.")))
            torch.testing.assert_close(trained, value, msg=name)


def accuracy(network, x, y, name):
    with torch.no_grad(), domain(network.eval(), name):
        return (network(x).argmax(1) == y).float().mean().item()


@pytest.mark.slow
def test_four_numbers(tmp_path):
    """Against one look at all images by hand, each domain attacked and judged through itself."""
    data = ToyData(batch_size=32)
    evaluation = PGD(eps=0.15, steps=3, step_size=0.05, start="zero")
    module = AdvPropTraining(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=evaluation, optimizer=SGD)
    trainer = quiet_trainer(tmp_path, max_epochs=3, num_sanity_val_steps=0)
    trainer.fit(module, data)
    reported = {name: value.item() for name, value in trainer.callback_metrics.items()}
    for name in ("main", "adversarial"):
        x_adv = evaluation(module.network, data.x, data.y, domain=name)
        assert reported[f"val/clean_accuracy_{name}"] == pytest.approx(accuracy(module.network, data.x, data.y, name))
        assert reported[f"val/robust_accuracy_{name}"] == pytest.approx(accuracy(module.network, x_adv, data.y, name))
    assert reported["val/clean_accuracy"] == reported["val/clean_accuracy_main"]
    assert reported["val/robust_accuracy"] == reported["val/robust_accuracy_main"]
    assert module.monitor == "val/clean_accuracy"


@pytest.mark.slow
def test_inference_through_auxiliary(tmp_path):
    module = AdvPropTraining(
        BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK, inference_domain="adversarial", optimizer=SGD
    )
    trainer = quiet_trainer(tmp_path, max_epochs=2, num_sanity_val_steps=0)
    trainer.fit(module, ToyData())
    reported = trainer.callback_metrics
    assert reported["val/clean_loss"] == reported["val/clean_loss_adversarial"] != reported["val/clean_loss_main"]
    assert module.monitor == "val/robust_accuracy"
    x = torch.rand(4, 1, 8, 8)
    module.eval()
    with torch.no_grad(), domain(module.network, "adversarial"):
        expected = module.network(x)
    assert torch.equal(module(x), expected)


def test_fine_grained_has_three_domains(tmp_path):
    module = AdvPropTraining(BACKBONE, num_classes=2, attack=ATTACK, augmentation=AutoAugment("cifar10"), optimizer=SGD)
    quiet_trainer(tmp_path, limit_val_batches=0).fit(module, ToyData())
    means = {
        name: module.network.network.layer1[1].norms[name].running_mean for name in ("main", "adversarial", "augmented")
    }
    counts = {int(v) for name, v in module.state_dict().items() if name.endswith("num_batches_tracked")}
    assert counts == {4}
    assert not torch.allclose(means["main"], means["augmented"])
    assert not torch.allclose(means["adversarial"], means["augmented"])
    assert set(module.domains) == {"main", "adversarial"}


def test_augmentation_draws_for_each_image_and_stays_an_image():
    torch.manual_seed(0)
    one = torch.rand(1, 3, 16, 16)
    augmented = AutoAugment("imagenet")(one.expand(8, -1, -1, -1))
    assert augmented.shape == (8, 3, 16, 16)
    assert 0 <= augmented.min() <= augmented.max() <= 1
    assert len({tuple(image.flatten().tolist()) for image in augmented}) > 4
    torch.manual_seed(0)
    torch.rand(1, 3, 16, 16)
    assert torch.equal(AutoAugment("imagenet")(one.expand(8, -1, -1, -1)), augmented)


@pytest.mark.slow
def test_no_clean_images_leaves_main_alone(tmp_path):
    module = AdvPropTraining(
        BACKBONE, num_classes=2, attack=ATTACK, clean_fraction=0.0, inference_domain="adversarial",
        optimizer=partial(torch.optim.SGD, lr=0.1, weight_decay=0.1),
    )  # fmt: skip
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trainer = quiet_trainer(tmp_path, num_sanity_val_steps=0)
    trainer.fit(module, ToyData())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]) == (".norms.main." in name or "normalize" in name), name
    assert not [name for name in trainer.callback_metrics if name.endswith("_main")]


def test_a_small_share_is_at_least_two_images(tmp_path):
    """One image of one pixel has no batch statistics."""
    module = AdvPropTraining(BACKBONE, num_classes=2, attack=ATTACK, clean_fraction=0.05, optimizer=SGD)
    quiet_trainer(tmp_path, limit_val_batches=0).fit(module, ToyData())
    counts = {int(v) for name, v in module.state_dict().items() if name.endswith("norms.main.num_batches_tracked")}
    assert counts == {4}


@pytest.mark.parametrize(("eps", "steps"), [("1/255", 1), ("2/255", 3), ("3/255", 4), ("4/255", 5), ("6/255", 7)])
@pytest.mark.parametrize("attacker", [PGD, IFGSM, GD])
def test_the_attack_of_section_7_5(eps, steps, attacker):
    attack = advprop_attack(eps, attacker)
    assert type(attack) is attacker
    assert attack.steps == steps
    assert attack.step_size == 1 / 255


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clean_fraction": 1.1}, r"clean_fraction must lie in \[0, 1\], got 1.1"),
        ({"clean_fraction": 0.0}, "clean_fraction is 0, which trains no main BatchNorm"),
        ({"inference_domain": "augmented"}, "inference_domain must be one of main, adversarial, got 'augmented'"),
        ({"reduction": "max"}, "reduction must be one of sum, mean, got 'max'"),
        ({"backbone": Backbone("convnext_atto")}, "no BatchNorm"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdvPropTraining(**{"backbone": BACKBONE, "num_classes": 2} | arguments)


def test_augmentation_policy_out_of_range():
    with pytest.raises(ValueError, match="policy must be one of imagenet, cifar10, svhn, got 'mnist'"):
        AutoAugment("mnist")
