"""The card of a network on the hub: what it is, how robust it was, against what, and how it is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import yaml

from lightning_adv._version import __version__
from lightning_adv.commands.push.source import Source
from lightning_adv.commands.push.timm_config import needed_beside_timm, unlike_timm
from lightning_adv.core.errors import UsageError
from lightning_adv.core.threat_model import ThreatModel
from lightning_adv.nn.own_networks import OWN

_SHOWN = ("steps", "step_size", "restarts", "label", "loss", "version")
_HEADER = ("file", "threat model", "attack", "images", "accuracy", "95 % interval")


def model_card(found: Source, repository: str, license: str) -> str:
    """Return the card as Markdown. Its numbers are those of ``results.json`` and ``evaluation.json``, and no others.

    Args:
        found: The network, and what is known of it.
        repository: ``user/name``.
        license: The licence, as the hub names it.

    Raises:
        UsageError: The accuracies that the files have cannot be read.
    """
    description = found.exported.description
    try:
        rows = list(_rows(found))
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # a hand may have changed the files
        raise UsageError(
            f"SOURCE: its accuracies are damaged ({type(error).__name__}: {error}): measure again."
        ) from error
    parts = [
        _front_matter(found, rows, license),
        f"# {repository.rpartition('/')[2]}",
        _summary(description),
        "## Accuracy",
        _accuracies(found, rows),
        "## Use",
        _use(repository, description),
        "## Training",
        _training(found),
    ]
    return "\n\n".join(parts) + "\n"


# Numbers ------------------------------------------------------------------------------------------------------------


class _Row(NamedTuple):
    """One accuracy, with all that it depends on.

    Attributes:
        file: The file that has it.
        threat: The threat model; None on clean images.
        attack: What attacked, in words.
        images: How many images.
        accuracy: The share of them.
        interval: Its 95 % confidence interval.
        dataset: The data set, if the file names it.
        headline: Whether it stands for the network, as an accuracy under one of several attacks does not.
    """

    file: str
    threat: ThreatModel | None
    attack: str
    images: int
    accuracy: float
    interval: Sequence[float]
    dataset: str | None
    headline: bool = True

    def cells(self) -> tuple[str, ...]:
        low, high = self.interval
        threat = "none: clean images" if self.threat is None else str(self.threat)
        return (
            self.file, threat, self.attack, f"{self.images:,}", f"{100 * self.accuracy:.1f} %",
            f"{100 * low:.1f} to {100 * high:.1f} %",
        )  # fmt: skip


def _rows(found: Source) -> Iterator[_Row]:
    description = found.exported.description
    results = description.get("results")
    if results is not None:
        count, dataset = results["test_images"], results.get("dataset")
        threat = ThreatModel.from_plain(description.get("threat_model"))
        for kind in ("clean", "robust"):
            accuracy, interval = results.get(f"{kind}_accuracy"), results.get(f"{kind}_interval")
            if accuracy is not None and interval is not None:
                clean = kind == "clean"
                attack = "" if clean else _attack(results.get("evaluation_attack"))
                yield _Row("results.json", None if clean else threat, attack, count, accuracy, interval, dataset)
    for evaluation in found.evaluations:
        yield from _rows_of(evaluation)


def _rows_of(evaluation: Mapping[str, Any]) -> Iterator[_Row]:
    file, images = f"{evaluation['name']}/evaluation.json", evaluation["images"]
    data = evaluation["settings"].get("data") or {}
    dataset = str(data.get("class_path", "")).rpartition(".")[2].removesuffix("DataModule") or None

    def row(threat: ThreatModel | None, attack: str, share: Mapping[str, Any], *, headline: bool = True) -> _Row:
        return _Row(file, threat, attack, images, share["accuracy"], share["interval"], dataset, headline)

    yield row(None, "", evaluation["clean"])
    for threat_model in evaluation["threat_models"]:
        norm = threat_model["norm"]
        threat = ThreatModel(None if norm is None else norm.lower(), threat_model["eps"])
        for case in threat_model["attacks"]:
            alone = case["alone"] is not None
            told = _attack({"name": case["name"], **case["attack"]}) + ("" if alone else ", after those above")
            yield row(threat, told, case["alone" if alone else "left"], headline=False)
        yield row(threat, "all together", threat_model["all_or_nothing"])


def _attack(attack: Mapping[str, Any] | None) -> str:
    """Say an attack in words, with the settings that make it weak or strong."""
    if attack is None:
        return "not named"
    settings = attack.get("init_args") or {}
    given = {name: settings[name] for name in _SHOWN if settings.get(name) is not None}
    numbers = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in given.items()}
    shown = ", ".join(f"{name} {value}" for name, value in numbers.items())
    name = attack.get("name", attack.get("class_path", "").rpartition(".")[2])
    return f"{name} ({shown})" if shown else str(name)


def _accuracies(found: Source, rows: Sequence[_Row]) -> str:
    if not rows:
        return (
            "Nothing is known: the files that were pushed have no accuracy of these weights. A network is not robust "
            "because nobody has attacked it."
        )
    lines = [_HEADER, ("---",) * len(_HEADER), *(row.cells() for row in rows)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    told = [
        table,
        "Distances are those of pixels in [0, 1]; intervals are Wilson's. A robust accuracy is an upper bound: a "
        "stronger attack may find more.",
    ]
    told += [
        f"**Doubt** ({ThreatModel(each['norm'], each['eps'])}, {each['images']:,} images): {each['message']}"
        for evaluation in found.evaluations
        for each in evaluation.get("suspicions", [])
    ]
    corrupted = [each for each in found.evaluations if each.get("corruptions")]
    told += [
        f"Common corruptions ({each['name']}/evaluation.json, {each['corruptions']['images']}): mean error "
        f"{100 * each['corruptions']['mean_error']:.1f} %."
        for each in corrupted
    ]
    return "\n\n".join(told)


# The rest -----------------------------------------------------------------------------------------------------------


def _front_matter(found: Source, rows: Sequence[_Row], license: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    description = found.exported.description
    by_timm = unlike_timm(description["architecture"]) is None
    name = description["architecture"]["name"]
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=(row.dataset or "unknown").lower(),
            dataset_name=row.dataset or "unknown",
            metric_type="accuracy",
            metric_name="clean accuracy" if row.threat is None else f"robust accuracy ({row.threat}, {row.attack})",
            metric_value=row.accuracy,
        )
        for row in rows
        if row.headline
    ]
    card = ModelCardData(
        license=license,
        library_name="timm" if by_timm else "lightning-adv",
        pipeline_tag="image-classification",
        tags=["adversarial-robustness", "lightning-adv", *(["timm"] if by_timm else [])],
        **({"model_name": name, "eval_results": results} if results else {}),
    )
    return f"---\n{card.to_yaml()}\n---"


def _summary(description: Mapping[str, Any]) -> str:
    architecture = description["architecture"]
    threat = description.get("threat_model")
    facts = {
        "network": f"{architecture['name']} ({architecture['library']}), {description['num_classes']} classes",
        "regime": description.get("regime"),
        "images": _shape(description),
        "BatchNorm domain": description.get("domain"),
        "threat model of its tests": None if threat is None else str(ThreatModel.from_plain(threat)),
        "classes": _classes(description.get("class_names")),
        "written": f"{datetime.now(UTC):%Y-%m-%d}, with lightning-adv {__version__}",
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value is not None)


def _shape(description: Mapping[str, Any]) -> str:
    shape = description.get("image_shape")
    size = "" if shape is None else f", trained on {' × '.join(map(str, shape))} (C × H × W)"
    numbers = description["normalization"]
    told = "; ".join(f"{name} {', '.join(f'{value:.4g}' for value in numbers[name])}" for name in ("mean", "std"))
    return f"pixels in [0, 1]{size}, normalised by {told}"


def _classes(names: Sequence[str] | None) -> str | None:
    if names is None:
        return None
    return ", ".join(names[:20]) + (f", ... ({len(names)}; all are in config.json)" if len(names) > 20 else "")


def _use(repository: str, description: Mapping[str, Any]) -> str:
    architecture = description["architecture"]
    package = architecture["name"].partition(".")[0] if architecture["library"] == OWN else None
    imported, trusted, option = "", "", ""
    if package is not None:
        imported = "from lightning_adv.core.trust import trust\n"
        trusted, option = f'trust("{package}")  # the package that has the code of the network\n', f" --trust {package}"
    own = (
        f"```python\n{imported}from lightning_adv.nn import from_pretrained\n\n{trusted}"
        f'network = from_pretrained("{repository}")  # takes images in [0, 1]: the normalisation is inside\n'
        "```"
    )
    data = (description.get("trained_on") or {}).get("class_path", "DATA_MODULE")
    data = data.rpartition(".")[2] if data.startswith("lightning_adv.") else data
    command = f"lightning-adv evaluate --config evaluation/quick --checkpoint hf-hub:{repository}"
    attacked = f"```bash\n{command} --data {data} --output FOLDER{option}\n```"
    reason = unlike_timm(architecture)
    if reason is not None:
        return f"{own}\n\n{attacked}\n\ntimm does not build this network, since {reason}."
    module = needed_beside_timm(architecture)
    lines = [
        *(() if module is None else (f"import {module}  # registers the network with timm",)),
        "import timm",
        "",
        f'network = timm.create_model("hf-hub:{repository}", pretrained=True).eval()',
        "config = timm.data.resolve_model_data_config(network)",
        "transform = timm.data.create_transform(**config)  # its images are normalised outside the network",
    ]
    with_timm = "\n".join(lines)
    return f"{own}\n\nWith timm:\n\n```python\n{with_timm}\n```\n\n{attacked}"


def _training(found: Source) -> str:
    description = found.exported.description
    named = ("regime", "training_attack", "objective", "epoch", "global_step", "evaluation_attack")
    known = {name: description[name] for name in named if description.get(name) is not None}
    data = description.get("trained_on")
    if data is not None:
        known["trained_on"] = {name: data[name] for name in ("name", "seed", "images") if data.get(name) is not None}
    if known and description.get("versions"):
        known["exported_with"] = description["versions"]
    told = "What trained these weights:" if known else "Nothing is known of what trained these weights."
    parts = [told, *([_yaml(known)] if known else [])]
    if found.configuration:
        parts += ["Its configuration, without the folders of the machine:", _yaml(found.configuration)]
    return "\n\n".join(parts)


def _yaml(content: Mapping[str, Any]) -> str:
    return f"```yaml\n{yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=120).rstrip()}\n```"
