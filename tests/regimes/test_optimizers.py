from functools import partial

import pytest
import torch
from torch import nn

from lightning_adv.regimes.optimizers import callable_from_config, callable_to_config, configure, parameter_groups


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_weight_decay_leaves_norm_and_bias_alone():
    """One SGD step on zero gradients moves exactly what is decayed."""
    model = network()
    nn.init.ones_(model[0].bias)
    nn.init.ones_(model[3].bias)
    before = {name: value.clone() for name, value in model.named_parameters()}
    sgd = partial(torch.optim.SGD, lr=0.5, weight_decay=0.1)
    optimizer = configure(model, sgd, None, "epoch", decay_norm_and_bias=False)["optimizer"]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in model.named_parameters():
        factor = 0.95 if name in ("0.weight", "3.weight") else 1.0
        torch.testing.assert_close(value, factor * before[name])


def test_every_parameter_is_decayed_by_default():
    (group,) = parameter_groups(network(), decay_norm_and_bias=True)
    assert len(group["params"]) == 6


def test_frozen_parameters_are_in_no_group():
    model = network()
    model[0].requires_grad_(False)
    parameters = [p for group in parameter_groups(model, decay_norm_and_bias=False) for p in group["params"]]
    assert len(parameters) == 4


def test_schedule_and_interval():
    sgd, step = partial(torch.optim.SGD, lr=0.1), partial(torch.optim.lr_scheduler.StepLR, step_size=3)
    config = configure(network(), sgd, step, "step", decay_norm_and_bias=True)
    assert config["lr_scheduler"]["interval"] == "step"
    assert config["lr_scheduler"]["scheduler"].optimizer is config["optimizer"]


def test_partial_survives_as_plain_data():
    factory = callable_from_config(callable_to_config(partial(torch.optim.SGD, lr=0.25, momentum=0.5)))
    optimizer = factory(network().parameters())
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["lr"] == 0.25
    assert optimizer.defaults["momentum"] == 0.5


def test_lambda_cannot_be_written_down():
    assert callable_to_config(lambda p: torch.optim.SGD(p, lr=0.1)) is None


def test_only_optimizers_and_schedules_are_built_from_a_checkpoint():
    with pytest.raises(ValueError, match="neither an optimizer nor"):
        callable_from_config({"class_path": "subprocess.Popen", "init_args": {"args": ["true"]}})
