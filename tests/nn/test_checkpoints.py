from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from lightning_adv.nn.checkpoints import check_fits, load_weights
from lightning_adv.nn.normalize import Normalize, NormalizedNetwork


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


@pytest.mark.parametrize("suffix", ["pth", "pt", "ckpt", "pth.tar"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "net"])
def test_files_of_torch_are_read_with_their_wrappers(tmp_path, suffix, wrapper):
    source, target, path = _plain(1), _plain(2), tmp_path / f"weights.{suffix}"
    content = source.state_dict()
    torch.save(content if wrapper is None else {"epoch": 3, "optimizer": {"lr": 0.1}, wrapper: content}, path)
    load_weights(target, path)
    assert _equal(target, source)


def test_safetensors_are_read(tmp_path):
    source, target = _plain(1), _plain(2)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    load_weights(target, tmp_path / "weights.safetensors")
    assert _equal(target, source)


def test_files_of_torch_before_its_zip_format_are_read(tmp_path):
    source, target = _plain(1), _plain(2)
    torch.save(source.state_dict(), tmp_path / "weights.pth", _use_new_zipfile_serialization=False)
    load_weights(target, tmp_path / "weights.pth")
    assert _equal(target, source)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "backbone.", "network.", "model._orig_mod.module."]
)
@pytest.mark.parametrize("whole", [True, False])
def test_prefixes_are_stripped_for_a_normalized_network(tmp_path, prefix, whole):
    source, target = _normalized(1, mean=0.25), _normalized(2, mean=0.75)
    state = (source if whole else source.network).state_dict()
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "weights.pth")
    load_weights(target, tmp_path / "weights.pth")
    assert _equal(target.network, source.network)
    assert target.normalize.mean.item() == (0.25 if whole else 0.75)  # plain keys leave the normalisation alone


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
        r"another network: keys 10 missing \(normalize.mean \(1, 1, 1\); .*; \.\.\.\), "
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
    "no weights": (lambda path: torch.save({"state_dict": {}}, path), r"holds the keys \[\], and no state dict"),
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
