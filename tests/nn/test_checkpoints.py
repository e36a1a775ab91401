from __future__ import annotations

import logging
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from lightning_adv.nn.batchnorm import convert_batchnorm, domain
from lightning_adv.nn.normalize import Normalize, NormalizedNetwork
from lightning_adv.nn.weights.load import check_fits, load_weights, say


def _plain(seed: int, classes: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    network = nn.Sequential(
        OrderedDict(conv=nn.Conv2d(1, 2, 3), bn=nn.BatchNorm2d(2), flatten=nn.Flatten(), fc=nn.Linear(72, classes))
    )
    network(torch.rand(4, 1, 8, 8))  # statistics that are not the initial ones
    return network


def _normalized(seed: int, mean: float) -> NormalizedNetwork:
    return NormalizedNetwork(Normalize((mean,), (0.5,)), _plain(seed))


def _equal(network: nn.Module, other: nn.Module) -> bool:
    state, others = network.state_dict(), other.state_dict()
    return state.keys() == others.keys() and all(torch.equal(state[key], others[key]) for key in state)


@pytest.mark.parametrize(
    ("suffix", "wrapper"), [("pth", None), ("pt", "state_dict"), ("ckpt", "model"), ("pth.tar", "net")]
)
def test_files_of_torch_are_read_with_their_wrappers(tmp_path, suffix, wrapper):
    source, target, path = _plain(1), _plain(2), tmp_path / f"weights.{suffix}"
    content = source.state_dict()
    torch.save(content if wrapper is None else {"epoch": 3, "optimizer": {"lr": 0.1}, wrapper: content}, path)
    load_weights(target, path)
    assert _equal(target, source)


def test_files_of_torch_before_its_zip_format_are_read(tmp_path):
    source, target = _plain(1), _plain(2)
    torch.save(source.state_dict(), tmp_path / "weights.pth", _use_new_zipfile_serialization=False)
    load_weights(target, tmp_path / "weights.pth")
    assert _equal(target, source)


def test_prefixes_that_the_network_has_itself_stay(tmp_path):
    source, target = nn.ModuleDict({"model": _plain(1)}), nn.ModuleDict({"model": _plain(2)})
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    load_weights(target, tmp_path / "weights.pth")
    assert _equal(target, source)


def test_batch_counters_may_be_missing(tmp_path):
    source, target = _plain(1), _plain(2)
    state = source.state_dict()  # keeps torch's versions: they make torch's own loading insist on the counters
    del state["bn.num_batches_tracked"]
    torch.save(state, tmp_path / "weights.pth")
    load_weights(target, tmp_path / "weights.pth")
    assert _equal(target, source)


@pytest.mark.slow
def test_versions_of_modules_are_kept(tmp_path):
    """The MNASNet of torchvision rebuilds its stem for a state dict of version 1, which is what no version means."""
    source, target = models.mnasnet0_5(weights=None), models.mnasnet0_5(weights=None)
    torch.save(nn.ModuleDict({"module": source}).state_dict(), tmp_path / "weights.pth")
    load_weights(target, tmp_path / "weights.pth")
    assert _equal(target, source)


def test_half_precision_weights_are_loaded_as_the_networks_dtype(tmp_path):
    source, target = _plain(1), _plain(2)
    torch.save(source.half().state_dict(), tmp_path / "weights.pth")
    load_weights(target, tmp_path / "weights.pth")
    assert target.fc.weight.dtype == torch.float32
    assert torch.equal(target.fc.weight, source.fc.weight.float())


def test_versions_of_modules_are_the_networks_own_where_the_file_has_none(tmp_path):
    source, target = models.mnasnet0_5(weights=None), models.mnasnet0_5(weights=None)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    load_weights(target, tmp_path / "weights.safetensors")
    assert _equal(target, source)


# Heads ----------------------------------------------------------------------------------------------------------------


def test_head_of_another_size_stays_new_and_is_reported(tmp_path):
    source, target, untouched = _plain(1, classes=5), _plain(2), _plain(2)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    report = load_weights(target, tmp_path / "weights.pth", head=("fc",))
    assert torch.equal(target.fc.weight, untouched.fc.weight)
    assert torch.equal(target.fc.bias, untouched.fc.bias)
    assert torch.equal(target.conv.weight, source.conv.weight)
    assert torch.equal(target.bn.running_var, source.bn.running_var)
    assert report.replaced_head == ("fc.weight", "fc.bias")
    assert report.head_classes == (3, 5)
    assert set(report.loaded) == source.state_dict().keys() - {"fc.weight", "fc.bias"}
    assert "the classifier, 3 classes where the file has 5 (fc.weight; fc.bias)" in str(report)


@pytest.mark.parametrize(
    "change",
    [
        {"fc.weight": torch.zeros(5, 71)},  # also other features
        {"fc.bias": torch.zeros(3)},  # weight and bias disagree
        {"conv.weight": torch.zeros(3, 1, 3, 3)},  # not only the head
        {"extra": torch.zeros(1)},
    ],
)
def test_what_else_does_not_fit_beside_a_new_head_is_an_error(tmp_path, change):
    target = _plain(2)
    torch.save({**_plain(1, classes=5).state_dict(), **change}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="weights of another network"):
        load_weights(target, tmp_path / "weights.pth", head=("fc",))
    assert _equal(target, _plain(2))


def test_optional_keys_are_there_or_not_all_together(tmp_path):
    target = _plain(2)
    state = _plain(1).state_dict()
    optional = ["bn.weight", "bn.bias"]
    torch.save({key: value for key, value in state.items() if key not in optional}, tmp_path / "without.pth")
    report = load_weights(target, tmp_path / "without.pth", optional=optional)
    assert report.missing == ("bn.weight", "bn.bias")
    assert "not in the file, left as it was: 2 (bn.weight; bn.bias)" in str(report)
    assert torch.equal(target.bn.running_mean, state["bn.running_mean"])
    torch.save({key: value for key, value in state.items() if key != "bn.weight"}, tmp_path / "half.pth")
    with pytest.raises(ValueError, match=r"1 missing \(bn.weight"):
        load_weights(target, tmp_path / "half.pth", optional=optional)


# Domains --------------------------------------------------------------------------------------------------------------


def _with_domains(*domains):
    """A network whose domains have been trained apart."""
    torch.manual_seed(5)
    network = convert_batchnorm(_plain(1), domains)
    for name in domains:
        with domain(network, name):
            network.train()(torch.rand(8, 1, 8, 8))
        torch.nn.init.normal_(network.bn.norms[name].weight)
    return network.eval()


def _outputs(network, name):
    with domain(network, name), torch.no_grad():
        return network(torch.linspace(0, 1, 2 * 64).view(2, 1, 8, 8))


@pytest.mark.parametrize(("asked", "taken"), [(None, "main"), ("main", "main"), ("adversarial", "adversarial")])
@pytest.mark.parametrize("prefix", ["", "module.model."])
def test_one_domain_is_loaded_into_a_plain_network(tmp_path, asked, taken, prefix):
    source, target = _with_domains("main", "adversarial"), _plain(2).eval()
    torch.save({prefix + key: value for key, value in source.state_dict().items()}, tmp_path / "weights.pth")
    report = load_weights(target, tmp_path / "weights.pth", domain=asked)
    assert torch.equal(target(torch.linspace(0, 1, 2 * 64).view(2, 1, 8, 8)), _outputs(source, taken))
    assert (report.domain, report.domains) == (taken, ("main", "adversarial"))
    assert f"BatchNorm domain: {taken}, of main, adversarial" in str(report)


@pytest.mark.parametrize(("asked", "taken"), [(None, "adversarial"), ("main", "main")])
def test_domain_that_the_regime_predicts_with_is_the_default(tmp_path, asked, taken):
    source, target = _with_domains("main", "adversarial"), _plain(2).eval()
    _save_regime(tmp_path / "best.ckpt", source, inference_domain="adversarial")
    assert load_weights(target, tmp_path / "best.ckpt", domain=asked).domain == taken
    assert torch.equal(target(torch.linspace(0, 1, 2 * 64).view(2, 1, 8, 8)), _outputs(source, taken))


def test_network_with_domains_takes_them_all(tmp_path):
    source, target = _with_domains("main", "adversarial"), convert_batchnorm(_plain(2))
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    assert load_weights(target, tmp_path / "weights.pth").domain is None
    assert _equal(target, source)


@pytest.mark.parametrize(
    ("domains", "asked", "message"),
    [
        (
            ("main", "adversarial"),
            "advresarial",
            r"^checkpoint_domain: .* no BatchNorm domain 'advresarial'; it has main, adversarial: name one of them\.",
        ),
        (("clean", "noisy"), None, "no BatchNorm domain 'main'; it has clean, noisy"),
        ((), "main", "has no BatchNorm domains, and 'main' was asked for"),
    ],
)
def test_domain_that_is_not_there_is_an_error(tmp_path, domains, asked, message):
    source, target = _with_domains(*domains) if domains else _plain(1), _plain(2)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=message):
        load_weights(target, tmp_path / "weights.pth", domain=asked)
    assert _equal(target, _plain(2))


# Checkpoints of this package ------------------------------------------------------------------------------------------


def _save_regime(path, network, backbone=None, extra=None, **hyper_parameters):
    """Write what a regime's checkpoint holds, for what is read of it."""
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    backbone = {"name": "x"} if backbone is None else backbone
    regime = {"class_path": "lightning_adv.regimes.madry.MadryTraining", "seed": 0}
    content = {"state_dict": {**state, **({} if extra is None else extra)}, "regime": regime, "epoch": 1}
    torch.save({**content, "hyper_parameters": {"backbone": backbone, **hyper_parameters}}, path)


def test_what_a_regime_keeps_beside_its_network_is_left(tmp_path):
    source, target = _normalized(1, mean=0.25), _normalized(2, mean=0.75)
    _save_regime(tmp_path / "best.ckpt", source, extra={"train_loss.mean_value": torch.zeros(())})
    report = load_weights(target, tmp_path / "best.ckpt")
    assert _equal(target, source)
    assert report.left == ("train_loss.mean_value",)
    assert report.source == "state_dict"
    assert "in the file, not used: 1 (train_loss.mean_value)" in str(report)


def test_what_lies_beside_the_network_of_another_project_is_an_error(tmp_path):
    state = {f"network.{key}": value for key, value in _plain(1).state_dict().items()}
    content = {
        "state_dict": {**state, "critic.weight": torch.zeros(1)},
        "hyper_parameters": {"backbone": {"name": "x"}},
    }
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="weights of another network"):
        load_weights(_plain(2), tmp_path / "other.ckpt")


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        ({"activation": "silu"}, {}, "activation silu, and the network's is of its architecture"),
        ({}, {"activation": "silu"}, "activation of its architecture, and the network's is silu"),
        ({"activation": "silu"}, {"activation": "gelu"}, "activation silu, and the network's is gelu"),
        (
            {"activation": "elu", "activation_options": {"alpha": 2.0}},
            {"activation": "elu"},
            r"activation elu with \{'alpha': 2.0\}, and the network's is elu",
        ),
        ({"activation": "smooth_backward_relu"}, {"activation": None}, None),
        ({"activation": "silu"}, {"activation": "silu", "activation_options": {}}, None),
        ({"class_path": "Backbone", "init_args": {"activation": "silu"}}, {"activation": "gelu"}, "silu.*gelu"),
    ],
)
def test_weights_that_would_compute_something_else_are_refused(tmp_path, theirs, ours, message):
    source, target = _plain(1), _plain(2)
    _save_regime(tmp_path / "best.ckpt", source, backbone={"name": "x", **theirs})
    if message is None:
        load_weights(target, tmp_path / "best.ckpt", recipe=ours)
        assert _equal(target, source)
        return
    with pytest.raises(ValueError, match=message):
        load_weights(target, tmp_path / "best.ckpt", recipe=ours)
    assert _equal(target, _plain(2))


# The report -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("key", ["conv.weight", "bn.running_var"])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path, key, value):
    state = _plain(1).state_dict()
    state[key].view(-1)[-1] = value
    torch.save(state, tmp_path / "weights.pth")
    target = _plain(2)
    with pytest.raises(ValueError, match=rf"weights.pth holds values that are NaN or infinite in 1 tensor \({key}\)"):
        load_weights(target, tmp_path / "weights.pth")
    assert _equal(target, _plain(2))


@pytest.mark.parametrize(
    ("ranks", "heard"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "3", "LOCAL_RANK": "0"}, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"SLURM_PROCID": "2"}, False),
    ],
)
def test_only_the_first_process_speaks(monkeypatch, caplog, ranks, heard):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, rank in ranks.items():
        monkeypatch.setenv(name, rank)
    with caplog.at_level(logging.INFO, "lightning_adv"):
        say("loaded")
        say("replaced", warn=True)
    told = [(record.levelno, record.message) for record in caplog.records]
    assert told == ([(logging.INFO, "loaded"), (logging.WARNING, "replaced")] if heard else [])


# Bad files ------------------------------------------------------------------------------------------------------------


def _whole_module(path):
    torch.save(_plain(1), path)


def _truncated(path):
    torch.save(_plain(1).state_dict(), path)
    path.write_bytes(path.read_bytes()[:1000])


BAD_FILES = {
    "other classes": (
        lambda path: torch.save(_plain(1, classes=5).state_dict(), path),
        r"another network: keys 0 missing, 0 unexpected, "
        r"2 of another shape \(fc.weight \(5, 72\) in the file, \(3, 72\) in the network; fc.bias \(5,\)",
    ),
    "other network": (
        lambda path: torch.save({f"layer{i}.weight": torch.zeros(i) for i in range(5)}, path),
        r"another network: keys 8 missing \(conv.weight \(2, 1, 3, 3\); .*; \.\.\.\), "
        r"5 unexpected \(layer0.weight \(0,\); layer1.weight \(1,\); layer2.weight \(2,\); \.\.\.\), "
        r"0 of another shape",
    ),
    "one key too many": (
        lambda path: torch.save({**_plain(1).state_dict(), "extra": torch.zeros(2)}, path),
        r"keys 0 missing, 1 unexpected \(extra \(2,\)\), 0 of another shape",
    ),
    "one key too few": (
        lambda path: torch.save({k: v for k, v in _plain(1).state_dict().items() if k != "fc.bias"}, path),
        r"keys 1 missing \(fc.bias \(3,\)\), 0 unexpected, 0 of another shape",
    ),
    "a whole module": (_whole_module, "cannot be read as weights: Unsupported global: .*Sequential was not an allowed"),
    "garbage": (
        lambda path: path.write_bytes(bytes(range(256)) * 8),
        "cannot be read as weights: Unsupported operand 0",
    ),
    "text": (lambda path: path.write_text("404: Not Found"), "cannot be read as weights: ."),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as weights: ."),
    "truncated": (_truncated, "cannot be read as weights: .*zip archive"),
    "a folder": (lambda path: path.mkdir(), "there is no file"),
    "no state dict": (
        lambda path: torch.save({"epoch": 3, "weights": _plain(1).state_dict()}, path),
        r"holds the keys \['epoch', 'weights'\], and no state dict",
    ),
    "no weights": (lambda path: torch.save({"state_dict": {}}, path), r"holds the keys \['state_dict'\], and no"),
    "a list": (lambda path: torch.save([1, 2], path), "holds a list, and no state dict"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_file_is_one_clear_error_and_loads_nothing(tmp_path, kind):
    write, message = BAD_FILES[kind]
    path = tmp_path / "weights.pth"
    write(path)
    network = _normalized(2, mean=0.75)
    with pytest.raises(ValueError, match=message) as caught:
        load_weights(network, path, argument="backbone.checkpoint")
    assert str(caught.value).startswith("backbone.checkpoint: ")
    assert str(path) in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's advice to switch the safety off
    assert "\n" not in str(caught.value)
    assert _equal(network, _normalized(2, mean=0.75))


def test_bad_safetensors_is_one_clear_error(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"not safe at all, but long enough")
    with pytest.raises(ValueError, match=r"checkpoint: .*weights\.safetensors cannot be read as weights: ."):
        load_weights(_plain(1), tmp_path / "weights.safetensors")


def test_check_fits_says_what_differs():
    check_fits(_plain(1), _plain(2).state_dict(), argument="ckpt_path")
    with pytest.raises(ValueError, match=r"ckpt_path: the checkpoint is of another network: .*2 of another shape \(fc"):
        check_fits(_plain(1), _plain(2, classes=5).state_dict(), argument="ckpt_path")
