"""Smooth adversarial training and its control experiment (table 5.1), against loops written out."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_adv.attacks import FGSM, PGD
from lightning_adv.nn.backbones import Backbone
from lightning_adv.regimes import SmoothAdversarialTraining
from tests.regimes.toy import BACKBONE, ToyData, assert_same, attacked_by_hand, quiet_trainer, trained_by_hand

SGD = partial(torch.optim.SGD, lr=0.1)


class Bent(torch.autograd.Function):
    """ReLU forward, equation 5.3 with alpha = 10 backward."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient / (1 + torch.exp(-10 * x))


class Switched(nn.Module):
    bent = False

    def forward(self, x):
        return Bent.apply(x) if Switched.bent else F.relu(x)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["attack", "update", "both"])
def test_control_experiment_against_a_loop(tmp_path, where):
    module = SmoothAdversarialTraining(
        BACKBONE, num_classes=2, attack=FGSM(eps=0.1), optimizer=SGD, smooth_gradient=where
    )
    network = BACKBONE.build(2)
    network.load_state_dict(module.network.state_dict())  # the names are those of the plain network
    for layer in (network.network.layer1, network.network.layer2, network.network.layer3, network.network.layer4):
        layer[2] = Switched()
    quiet_trainer(tmp_path, limit_val_batches=0).fit(module, ToyData())

    def loss(x, y):
        Switched.bent = where in ("attack", "both")
        x_adv = attacked_by_hand(network, x, y)
        Switched.bent = where in ("update", "both")
        return F.cross_entropy(network(x_adv), y)

    trained_by_hand(network.parameters(), loss)
    Switched.bent = False
    assert_same(module.network, network)


@pytest.mark.slow
def test_validation_attacks_through_the_gradient_of_relu(tmp_path):
    """Inference is ReLU's alone (section 5.3.2): the numbers are those of the plain network."""
    attack = PGD(eps=0.1, steps=3, step_size=0.05, start="zero")
    module = SmoothAdversarialTraining(
        BACKBONE, num_classes=2, attack=attack, evaluation_attack=attack, smooth_gradient="both", optimizer=SGD
    )
    trainer = quiet_trainer(tmp_path, num_sanity_val_steps=0)
    trainer.fit(module, ToyData(batch_size=32))
    plain = BACKBONE.build(2).eval()
    plain.load_state_dict(module.network.state_dict())
    data = ToyData()
    loss = F.cross_entropy(plain(attack(plain, data.x, data.y)), data.y)
    assert trainer.callback_metrics["val/robust_loss"].item() == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("activation", "options", "function"),
    [
        ("silu", None, F.silu),
        ("gelu", None, F.gelu),
        ("parametric_softplus", {"alpha": 5.0}, lambda x: F.softplus(x, beta=5.0)),
        ("elu", {"alpha": 1.5}, lambda x: F.elu(x, alpha=1.5)),
    ],
)
def test_the_network_computes_with_the_activation(activation, options, function):
    module = SmoothAdversarialTraining(BACKBONE, num_classes=2, activation=activation, activation_options=options)
    x = torch.rand(4, 1, 8, 8)
    module.eval()
    network = module.network.network
    features = (x - 0.5) / 0.5
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        features = function(layer[1](layer[0](features)))
    torch.testing.assert_close(module(x), network.fc(features.mean((2, 3))))


@pytest.mark.slow
def test_weight_decay_leaves_the_parameter_of_smooth_relu_alone(tmp_path):
    """With a gradient of next to nothing, decay alone would take alpha from 400 to 384."""
    decays = partial(torch.optim.SGD, lr=0.1, weight_decay=0.1)
    module = SmoothAdversarialTraining(
        BACKBONE, num_classes=2, attack=FGSM(eps=0.1), optimizer=decays, activation="smooth_relu"
    )
    quiet_trainer(tmp_path, limit_val_batches=0).fit(module, ToyData())
    assert module.network.network.layer1[2].alpha.item() == pytest.approx(400, abs=0.1)


@pytest.mark.slow
def test_a_network_without_relu_is_taken_as_it_is():
    module = SmoothAdversarialTraining(Backbone("efficientnet_b0"), num_classes=2, activation=None)
    assert module.backbone.activation is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "sillu"}, "'silu'"),
        ({"activation": None}, "activation is null, but backbone.name 'small_cnn' is not smooth, as in the ReLU at"),
        ({"activation": None, "backbone": Backbone("darknet53")}, "is not smooth, as in the LeakyReLU at"),
        ({"activation": "smooth_backward_relu"}, "is ReLU until it is told where"),
        ({"smooth_gradient": "forward"}, "smooth_gradient must be one of attack, update, both, got 'forward'"),
        ({"smooth_gradient": "both", "activation": "gelu"}, "leave activation 'gelu' out"),
        (
            {"backbone": Backbone("small_cnn", in_channels=1, activation="gelu")},
            "backbone.activation is 'gelu' and activation is 'silu'",
        ),
        ({"backbone": Backbone("efficientnet_b0")}, "replaces ReLUs, and EfficientNet has none"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SmoothAdversarialTraining(**{"backbone": BACKBONE, "num_classes": 2} | arguments)
