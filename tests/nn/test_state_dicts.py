"""Checkpoints as other projects write them, loaded into a network with its normalisation inside."""

from __future__ import annotations

from collections import OrderedDict
from itertools import permutations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from lightning_adv.nn.normalize import Normalize, NormalizedNetwork
from lightning_adv.nn.weights.load import load_weights
from lightning_adv.nn.weights.state_dicts import find_state_dict

MEAN, STD = (0.1, 0.4, 0.7), (0.2, 0.5, 0.3)


def _plain(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, 2, 3), bn=nn.BatchNorm2d(2), flatten=nn.Flatten(), fc=nn.Linear(72, 3))
    )


def _target() -> NormalizedNetwork:
    return NormalizedNetwork(Normalize((0.5,) * 3, (0.25,) * 3), _plain(2))


def _save(path, state):
    torch.save({"state_dict": dict(state)}, path)
    return path


class InputNormalize(nn.Module):
    """As in MadryLab's robustness, helpers.py."""

    def __init__(self):
        super().__init__()
        self.register_buffer("new_mean", torch.tensor(MEAN)[..., None, None])
        self.register_buffer("new_std", torch.tensor(STD)[..., None, None])

    def forward(self, x):
        return (torch.clamp(x, 0, 1) - self.new_mean) / self.new_std


class Attacker(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.normalize, self.model = InputNormalize(), model


class AttackerModel(nn.Module):
    """As in MadryLab's robustness, attacker.py."""

    def __init__(self, model):
        super().__init__()
        self.normalizer, self.model, self.attacker = InputNormalize(), model, Attacker(model)

    def forward(self, x):
        return self.model(self.normalizer(x))


class Buffers(nn.Module):
    """As in RobustBench: the normalisation as buffers (1, C, 1, 1) of the network itself."""

    def __init__(self, model, mean="mu", std="sigma"):
        super().__init__()
        self.names, self.model = (mean, std), model
        self.register_buffer(mean, torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer(std, torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, x):
        return self.model((x - getattr(self, self.names[0])) / getattr(self, self.names[1]))


WRAPPED = {
    "robustness": AttackerModel,
    "robustness, DataParallel": lambda plain: nn.DataParallel(AttackerModel(plain)),
    "RobustBench": Buffers,
    "mean and std": lambda plain: Buffers(plain, "mean", "std"),
    "Sequential": lambda plain: nn.Sequential(InputNormalize(), plain),
    "Sequential, DataParallel inside": lambda plain: nn.Sequential(InputNormalize(), nn.DataParallel(plain)),
    "ours, compiled": lambda plain: torch.compile(NormalizedNetwork(Normalize(MEAN, STD), plain)),
    "ours, averaged": lambda plain: AveragedModel(NormalizedNetwork(Normalize(MEAN, STD), plain)),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_network_computes_what_its_project_computes(tmp_path, kind):
    wrapped = WRAPPED[kind](_plain(1)).eval()
    path, target = _save(tmp_path / "w.pt", wrapped.state_dict()), _target().eval()
    report = load_weights(target, path)
    x = torch.rand(4, 3, 8, 8)
    expected = wrapped._orig_mod(x) if kind == "ours, compiled" else wrapped(x)
    torch.testing.assert_close(target(x), expected, rtol=0, atol=0)
    assert report.normalization == (pytest.approx(MEAN), pytest.approx(STD))
    assert "normalisation of the file: mean 0.1, 0.4, 0.7; standard deviation 0.2, 0.5, 0.3" in str(report)
    copies = {key for key in wrapped.state_dict() if ".attacker." in f".{key}"}
    assert set(report.left) == copies | ({"n_averaged"} if "averaged" in kind else set())


@pytest.mark.parametrize("prefixes", [*permutations(("module.", "_orig_mod.", "model.")), ("backbone.", "network.")])
def test_prefixes_may_come_in_any_order(tmp_path, prefixes):
    state = {"".join(prefixes) + key: value for key, value in _plain(1).state_dict().items()}
    target = _target()
    report = load_weights(target, _save(tmp_path / "w.pt", state))
    assert all(torch.equal(value, target.network.state_dict()[key]) for key, value in _plain(1).state_dict().items())
    assert report.normalization is None
    assert target.normalize.mean.flatten().tolist() == [0.5] * 3


def test_one_value_stands_for_all_channels(tmp_path):
    state = {**_plain(1).state_dict(), "mean": torch.tensor(0.3), "std": torch.tensor([0.4])}
    target = _target()
    load_weights(target, _save(tmp_path / "w.pt", state))
    assert target.normalize.mean.flatten().tolist() == pytest.approx([0.3] * 3)
    assert target.normalize.std.flatten().tolist() == pytest.approx([0.4] * 3)


def test_plain_network_leaves_the_normalisation_and_says_so(tmp_path):
    target = _plain(2)
    report = load_weights(target, _save(tmp_path / "w.pt", Buffers(_plain(1)).state_dict()))
    assert torch.equal(target.conv.weight, _plain(1).conv.weight)
    assert report.left == ("the normalisation",)


BAD = {
    "of other channels": (
        {"mean": torch.zeros(1, 2, 1, 1), "std": torch.ones(1, 2, 1, 1)},
        "normalisation of 2 channels",
    ),
    "of bytes": ({"mean": torch.tensor([124.0, 116, 104]), "std": torch.tensor([58.0, 57, 57])}, r"pixels in \[0, 1\]"),
    "without a deviation": ({"mean": torch.zeros(3)}, r"1 unexpected \(mean \(3,\)\)"),
    "that divides by 0": ({"mean": torch.zeros(3), "std": torch.zeros(3)}, r"pixels in \[0, 1\]"),
    "not for each channel": ({"mean": torch.zeros(3, 8, 8), "std": torch.ones(3, 8, 8)}, "2 unexpected"),
    "and another": (
        {"mu": torch.zeros(3), "sigma": torch.ones(3), "mean": torch.zeros(3), "std": torch.ones(3)},
        "2 unexpected",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_normalisation_that_cannot_be_used_is_an_error(tmp_path, kind):
    extra, message = BAD[kind]
    target = _target()
    path = _save(tmp_path / "w.pt", {**_plain(1).state_dict(), **extra})
    with pytest.raises(ValueError, match=message):
        load_weights(target, path)
    assert torch.equal(target.network.conv.weight, _plain(2).conv.weight)
    assert target.normalize.mean.flatten().tolist() == [0.5] * 3


def test_attacker_that_is_no_copy_is_an_error(tmp_path):
    state = AttackerModel(_plain(1)).state_dict()
    state["attacker.model.conv.weight"] = torch.zeros_like(state["attacker.model.conv.weight"])
    with pytest.raises(ValueError, match="weights of another network"):
        load_weights(_target(), _save(tmp_path / "w.pt", state))


@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema", "ema"])
def test_averaged_weights_come_first(averaged):
    raw, average = {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    found = find_state_dict({"epoch": 1, "state_dict": raw, "model": raw, averaged: average})
    assert found is not None
    assert found[1] == averaged
    assert torch.equal(found[0]["w"], average["w"])


def test_settings_of_an_average_are_no_weights():
    found = find_state_dict({"ema": {"decay": 0.9}, "model": {"module": {"w": torch.ones(1)}}})
    assert found is not None
    assert found[1] == "model.module"


@pytest.mark.parametrize("content", [None, [torch.zeros(1)], {}, {"epoch": 1}, {"model": {}}])
def test_no_state_dict(content):
    assert find_state_dict(content) is None
