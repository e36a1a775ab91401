"""Networks from the Hugging Face hub, for which its own cache stands or a server on this machine."""

from __future__ import annotations

import json
import shutil
import sys

import huggingface_hub.constants
import pytest
import torch

from lightning_adv.nn import Backbone, convert_batchnorm, domain, export_network, from_pretrained, write_network
from tests.fake_hub import serve

RECIPE = Backbone("small_cnn", in_channels=1, mean=(0.3,), std=(0.4,), options={"width": 4})
X = torch.linspace(0, 1, 3 * 64).view(3, 1, 8, 8)


@pytest.fixture
def exported(tmp_path):
    """The folder of an exported network, and its logits."""
    torch.manual_seed(0)
    network = RECIPE.build(10).eval()
    written = export_network(network, RECIPE.architecture(), 10, facts={"class_names": list("0123456789")})
    write_network(written, tmp_path / "export")
    with torch.no_grad():
        return tmp_path / "export", network(X)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache, which is all of the hub that there is."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def publish(folder, cache, repository="user/name", revision="main", commit="0" * 40):
    """Put a folder into a cache as the hub's own library lays it out."""
    place = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / commit)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / revision).write_text(commit)


def test_a_repository_is_the_network_that_was_exported(exported, cache):
    publish(exported[0], cache)
    for name in ("user/name", "hf-hub:user/name", "hf-hub:user/name@main", str(exported[0])):
        network = from_pretrained(name)
        assert not network.training
        with torch.no_grad():
            assert torch.equal(network(X), exported[1])
        assert network.description["class_names"] == list("0123456789")
    backbone = Backbone("small_cnn", in_channels=1, checkpoint="hf-hub:user/name", options={"width": 4})
    with torch.no_grad():
        assert torch.equal(backbone.build(10).eval()(X), exported[1])


def test_a_revision_is_the_one_that_is_asked_for(exported, cache, tmp_path):
    other = RECIPE.build(10).eval()
    write_network(export_network(other, RECIPE.architecture(), 10), tmp_path / "other")
    publish(exported[0], cache)
    publish(tmp_path / "other", cache, revision="v2", commit="1" * 40)
    with torch.no_grad():
        assert torch.equal(from_pretrained("user/name")(X), exported[1])
        assert torch.equal(from_pretrained("user/name", revision="v2")(X), other(X))
        assert torch.equal(from_pretrained("hf-hub:user/name@v2")(X), other(X))
    with pytest.raises(ValueError, match="revision: is 'v1', and the name 'user/name@v2' has one too"):
        from_pretrained("user/name@v2", revision="v1")


def test_the_domain_that_was_exported_is_the_network(tmp_path):
    network = convert_batchnorm(RECIPE.build(10)).train()
    with domain(network, "adversarial"):
        network(X)
    network.eval()
    write_network(export_network(network, RECIPE.architecture(), 10, domain="adversarial"), tmp_path)
    with torch.no_grad(), domain(network, "adversarial"):
        assert torch.equal(from_pretrained(tmp_path)(X), network(X))


def test_a_network_that_a_repository_names_by_its_path_is_not_imported(exported, tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text("raise SystemExit('run')")
    monkeypatch.syspath_prepend(tmp_path)
    description = json.loads((exported[0] / "model.json").read_text())
    options = {"command": f"touch {tmp_path / 'run'}"}
    for name, sentence in {
        "beside.Network": "is not of this package",
        "os.system": "is a function of a package",
    }.items():
        architecture = description["architecture"] | {"library": "python", "name": name, "options": options}
        (exported[0] / "model.json").write_text(json.dumps(description | {"architecture": architecture}))
        with pytest.raises(ValueError, match=rf"^backbone.name '{name}' {sentence}"):
            from_pretrained(exported[0])
    assert not (tmp_path / "run").exists()
    assert "beside" not in sys.modules


def test_what_is_not_there_is_told_in_a_sentence(exported, cache, tmp_path):
    publish(exported[0], cache)
    for name, sentence in {
        "user/other": "name: the hub cannot be reached for user/other: ",
        "us er": "name: 'us er' is not a repository such as user/name",
        "user/name@v9": "name: the hub cannot be reached for user/name: ",
    }.items():
        with pytest.raises(ValueError, match=f"^{sentence}") as caught:
            from_pretrained(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^checkpoint: the hub cannot be reached for user/other"):
        Backbone("small_cnn", in_channels=1, checkpoint="hf-hub:user/other").build(10)
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "model.onnx").touch()
    with pytest.raises(ValueError, match=r"has model\.onnx, and no model\.safetensors: .* --format safetensors"):
        from_pretrained(tmp_path / "programs")
    (exported[0] / "model.json").write_text(json.dumps({"format": "pt"}))
    for name in (tmp_path, exported[0]):
        with pytest.raises(ValueError, match=r"has no model\.\w+.*: it is not a network that 'lightning-adv export'"):
            from_pretrained(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (404, "RepoNotFound", "user/name is not on the hub, or private: then log in"),
        (403, "GatedRepo", "user/name is gated: ask for access on its page, and log in"),
        (404, "RevisionNotFound", "user/name has no such revision"),
        (401, None, "the hub refuses user/name with status 401: log in with a token that may write there"),
        (500, None, "the hub cannot be reached for user/name: .*500"),
    ],
)
def test_what_the_hub_answers_is_told_in_a_sentence(tmp_path, status, code, sentence):
    with serve(tmp_path) as hub:
        hub.refusal = status, code
        with pytest.raises(ValueError, match=f"^name: {sentence}") as caught:
            from_pretrained("user/name", token="hf_x")
    assert "\n" not in str(caught.value)
    assert "Bearer hf_x" in hub.tokens


def test_a_repository_is_downloaded(exported, tmp_path):
    with serve(tmp_path) as hub:
        with pytest.raises(ValueError, match=r"^name: user/name is not on the hub, or private"):
            from_pretrained("user/name")
        shutil.copytree(exported[0], hub.folder / "user" / "name")
        (hub.folder / "user" / "name" / "modeling.py").write_text("raise SystemExit('run')")
        network = from_pretrained("user/name", cache_dir=tmp_path / "mine")
    with torch.no_grad():
        assert torch.equal(network(X), exported[1])
    assert {path.name for path in (tmp_path / "mine").rglob("snapshots/*/*")} == {"model.safetensors", "model.json"}
