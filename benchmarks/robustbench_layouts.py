"""Which of RobustBench's CIFAR-10 Linf networks load here, with the logits of the authors' own classes.

``python benchmarks/robustbench_layouts.py FOLDER`` takes the folder that holds the package ``robustbench`` 1.1.1 (``pip
install --no-deps --target FOLDER robustbench geotorch torchdiffeq``), builds each entry's class with random weights,
loads its state dict by ``robustbench/<entry>``, and compares the logits of random images. Nothing is downloaded. The
wide ResNets are compared with 16 layers of width 1, and at their own size by the names and shapes of their tensors.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.weights.state_dicts import Candidate, fit, without_unused
from lightning_adv.nn.zoo.robustbench import NOT_BUILT, PUBLISHED

OUTPUT = Path(__file__).parent.parent / "docs" / "results" / "robustbench.json"
TOLERANCE = 1e-5
XCIT = "Debenedetti2022Light"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the package robustbench lies")
    arguments = parser.parse_args()
    entries = load_entries(arguments.folder)
    if entries.keys() != PUBLISHED.keys() | NOT_BUILT.keys():
        raise SystemExit(f"other entries: {sorted(entries.keys() ^ (PUBLISHED.keys() | NOT_BUILT.keys()))}")
    rows = []
    for name, entry in entries.items():
        row = [f"`{name}`", "", "", NOT_BUILT.get(name, "")]
        if name in PUBLISHED:
            check_source(name, entry)
            difference = compare(name, entry)
            row = [f"`{name}`", f"`{PUBLISHED[name].network}`", described(name), f"{difference:.0e}"]
        print(*row, sep=" | ", flush=True)
        rows.append(row)
    columns = [{"name": column} for column in ("entry", "network", "options", "largest difference of logits")]
    result = {
        "title": "RobustBench's CIFAR-10 Linf networks by the authors' classes and by ours",
        "recorded": {
            "how": "the command below, with random weights: nothing was downloaded",
            "machine": "one thread, no GPU",
            "versions": {"torch": torch.__version__, "timm": timm.__version__, "robustbench": "1.1.1"},
        },
        "commands": {"entries": "python benchmarks/robustbench_layouts.py FOLDER"},
        "counts": {"entries": len(rows), "built": len(PUBLISHED)},
        "tolerance": TOLERANCE,
        "tables": {"entries": {"columns": columns, "rows": rows}},
    }
    OUTPUT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_entries(folder: Path) -> dict[str, dict[str, Any]]:
    """Return RobustBench's own table. Its package is not imported, which needs what PyPI does not have."""
    sys.path.append(str(folder))
    package = types.ModuleType("robustbench")
    package.__path__ = [str(folder / "robustbench")]
    sys.modules["robustbench"] = package
    from robustbench.model_zoo.cifar10 import linf

    return dict(linf)


def build(name: str, entry: dict[str, Any]) -> nn.Module:
    """Build the authors' class. RobustBench's table has names for its XCiTs that it does not register."""
    if name.startswith(XCIT):
        return timm.create_model(f"{name.lower().replace('-', '_')}_cifar10_linf")
    network: nn.Module = entry["model"]()
    return network


def check_source(name: str, entry: dict[str, Any]) -> None:
    """Check that the weights lie where RobustBench says."""
    source = entry["gdrive_id"]
    if source is None:
        from robustbench.model_zoo.architectures.xcit import default_cfgs

        source = default_cfgs[f"{name.lower().replace('-', '_')}_cifar10_linf"]["url"]
    if PUBLISHED[name].source != source:
        raise SystemExit(f"{name}: {PUBLISHED[name].source} is not {source}")


def compare(name: str, entry: dict[str, Any]) -> float:
    """Return the largest difference of the logits of random images.

    Raises:
        SystemExit: It is above the tolerance, or the tensors at full size are others.
    """
    options = {}
    if "depth" in PUBLISHED[name].options:
        with torch.device("meta"):
            network = build(name, entry)
        check_shapes(name, network.state_dict())
        options = {"depth": 16, "widen_factor": 1}
        network = smaller(network)
    else:
        network = build(name, entry)
    torch.manual_seed(0)
    images = torch.rand(4, 3, 32, 32)
    randomize(network.eval(), images)
    plain = network.model if name.startswith(XCIT) else network
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        file = Path(folder) / "weights.pt"
        torch.save({"state_dict": {f"module.{key}": value for key, value in plain.state_dict().items()}}, file)
        theirs: Tensor = network(images)
        ours = Backbone(f"robustbench/{name}", checkpoint=str(file), options=options).build(10).eval()(images)
    difference = float((theirs - ours).abs().max())
    if difference > TOLERANCE or float(theirs.std(0).max()) < 100 * TOLERANCE:
        raise SystemExit(f"{name}: logits {theirs} and {ours}")
    return difference


def smaller(network: nn.Module) -> nn.Module:
    """Build a wide ResNet of the same class with 16 layers of width 1."""
    kind: Any = type(network)
    if kind.__name__ == "DMWideResNet":
        small: nn.Module = kind(depth=16, width=1, activation_fn=type(network.relu))
    elif kind.__name__ == "WideResNet":
        small = kind(depth=16, widen_factor=1, sub_block1=hasattr(network, "sub_block1"))
    else:
        small = kind(depth=16, widen_factor=1)
    return small


def check_shapes(name: str, theirs: dict[str, Tensor]) -> None:
    """Check that the tensors of the authors' class at full size are those of our network."""
    recipe, rewrite = Backbone(f"robustbench/{name}").without_weights(), PUBLISHED[name].rewrite
    with torch.device("meta"):
        network = timm.create_model(recipe.name, num_classes=10, **recipe.options)
    state = OrderedDict((key, value) for key, value in theirs.items() if key not in ("mu", "sigma"))
    candidate = Candidate(OrderedDict(state if rewrite is None else rewrite(state, network)))
    own = network.state_dict()
    compared = fit(own, without_unused(candidate, network.unused_keys), (), ())
    if not compared.loads:
        raise SystemExit(f"{name}: {compared.report(own)}")


def described(name: str) -> str:
    """Return the options, the activation and the normalisation of an entry, as the page of RobustBench has them."""
    published = PUBLISHED[name]
    told = {**published.options, **({} if published.stem == "default" else {"stem": published.stem})}
    told |= {} if published.activation is None else {"activation": published.activation}
    return ", ".join(f"{key} {value}" for key, value in told.items())


@torch.no_grad()
def randomize(network: nn.Module, images: Tensor) -> None:
    """Draw statistics and parameters of BatchNorms that matter, and bring the logits to a largest of 1."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            module.weight.uniform_(0.7, 1.3)
            module.bias.normal_(0, 0.1)
    head = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    largest = network(images).abs().max()
    for parameter in head.parameters():
        parameter /= largest


if __name__ == "__main__":
    main()
