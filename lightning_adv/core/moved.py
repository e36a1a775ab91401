"""What has moved or has another name: the old ones are taken, with a warning, until version 0.4.

One table serves programs that import a module by its old path and files that name a class by it.
"""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_PACKAGE = "lightning_adv"

# since version 0.2
_MOVED = {
    "analysis.cifar_corruptions": "evaluation.corruptions.cifar",
    "analysis.corruption_errors": "evaluation.corruptions.errors",
    "analysis.corruption_figures": "evaluation.corruptions.figures",
    "analysis.corruptions": "evaluation.corruptions.corrupt",
    "analysis.frequency": "analysis.images.frequency",
    "analysis.frequency_figures": "analysis.images.frequency_figures",
    "analysis.image_transforms": "analysis.images.transforms",
    "analysis.intervals": "core.shares",
    "analysis.labels": "core.figures",
    "analysis.logits": "attacks.logits",
    "analysis.perturbation_figures": "analysis.images.perturbation_figures",
    "analysis.perturbations": "analysis.images.perturbations",
    "analysis.suspicion": "evaluation.suspicion.find",
    "analysis.suspicion_network": "evaluation.suspicion.network",
    "analysis.suspicion_normalisation": "evaluation.suspicion.normalisation",
    "analysis.suspicion_verdicts": "evaluation.suspicion.verdicts",
    "analysis.table": "core.table",
    "analysis.transfer": "evaluation.transfer.rates",
    "analysis.transfer_figures": "evaluation.transfer.figures",
    "analysis.transformed_accuracy": "analysis.images.transformed_accuracy",
    "arguments": "core.arguments",
    "attacks.adapters": "attacks.external.adapters",
    "attacks.autoattack": "attacks.external.autoattack",
    "attacks.foolbox_attack": "attacks.external.foolbox_attack",
    "attacks.objective": "attacks.ascent",
    "attacks.reach": "attacks.describe",
    "attacks.threat": "attacks.describe",
    "callbacks.conditions": "callbacks.undisturbed",
    "callbacks.probe": "callbacks.fixed_images",
    "callbacks.records": "callbacks.output",
    "callbacks.sending": "callbacks.output",
    "callbacks.whole_checkpoints": "callbacks.checkpoint_io",
    "data.seeding": "core.seeds",
    "distances": "core.distances",
    "files": "core.files",
    "hints": "core.suggestions",
    "locks": "core.locks",
    "nn.attack_view": "nn.view.attack_view",
    "nn.checkpoint_form": "nn.weights.checkpoint_form",
    "nn.checkpoints": "nn.weights.load",
    "nn.domain_states": "nn.weights.domain_states",
    "nn.export": "nn.weights.export",
    "nn.finite": "nn.weights.finite",
    "nn.folding": "nn.view.folding",
    "nn.module_state": "nn.view.module_state",
    "nn.names": "nn.layers",
    "nn.preact_resnet": "nn.zoo.preact_resnet",
    "nn.runs": "nn.weights.runs",
    "nn.small_cnn": "nn.zoo.small_cnn",
    "nn.state_dicts": "nn.weights.state_dicts",
    "nn.view_copies": "nn.view.copies",
    "nn.view_weights": "nn.view.weights",
    "nn.wide_resnet": "nn.zoo.wide_resnet",
    "reading": "core.reading",
    "recipe": "core.recipe",
    "regimes.averaging": "regimes.weight_averaging",
    "regimes.evaluation": "regimes.metrics",
    "regimes.noise": "core.seeds",
    "regimes.resume": "regimes.changed_settings",
    "regimes.trained_on": "regimes.training_data",
    "regimes.views": "regimes.attack_runner",
    "run": "commands",
    "run.arguments": "commands.shared.plain_parser",
    "run.class_paths": "commands.shared.class_paths",
    "run.command": "commands.fit.command",
    "run.configs": "commands.shared.configs",
    "run.epoch_lines": "commands.fit.epoch_lines",
    "run.evaluation": "commands.evaluate",
    "run.evaluation.command": "commands.evaluate.command",
    "run.evaluation.corruptions": "commands.evaluate.corruptions",
    "run.evaluation.devices": "commands.shared.devices",
    "run.evaluation.folder": "commands.evaluate.folder",
    "run.evaluation.images": "commands.shared.images",
    "run.evaluation.networks": "commands.shared.networks",
    "run.evaluation.output": "commands.evaluate.output",
    "run.evaluation.settings": "commands.evaluate.settings",
    "run.evaluation.suspicions": "commands.evaluate.suspicions",
    "run.export": "commands.export.command",
    "run.export_checkpoint": "commands.export.checkpoint",
    "run.folder": "commands.shared.run_folder",
    "run.held_out": "commands.shared.held_out",
    "run.help_texts": "commands.shared.help_texts",
    "run.logger": "commands.fit.logger",
    "run.messages": "commands.shared.messages",
    "run.mistakes": "commands.shared.mistakes",
    "run.noise": "commands.shared.quiet",
    "run.parser": "commands.shared.parser",
    "run.placing": "commands.fit.placing",
    "run.predictions": "commands.fit.predictions",
    "run.presets": "commands.shared.presets",
    "run.processes": "commands.shared.processes",
    "run.report": "commands.report",
    "run.results": "commands.fit.results",
    "run.save_config": "commands.fit.save_config",
    "run.sources": "commands.shared.sources",
    "run.stopping": "commands.shared.stopping",
    "run.takes": "commands.shared.takes",
    "run.trainer_values": "commands.fit.trainer_values",
    "run.transfer": "commands.transfer",
    "run.values": "commands.shared.values",
    "run.versions": "core.versions",
    "seeds": "core.seeds",
    "streams": "core.streams",
}

# since version 0.2: classes that have another name as well, by where they are now
_RENAMED = {"commands.shared.run_folder.Start": "RunFolderRollback"}


def new_path(path: str) -> str:
    """Return where a module of this package is now, given where it was; any other path as it is.

    Example:
        >>> new_path("lightning_adv.nn.names"), new_path("lightning_adv.attacks")
        ('lightning_adv.nn.layers', 'lightning_adv.attacks')
    """
    moved = _MOVED.get(path.removeprefix(f"{_PACKAGE}."))
    return path if moved is None or not path.startswith(f"{_PACKAGE}.") else f"{_PACKAGE}.{moved}"


def new_class_path(class_path: str) -> str:
    """Return the path of a class of this package as it is now, given what it was; any other path as it is.

    Example:
        >>> new_class_path("lightning_adv.run.folder.Start")
        'lightning_adv.commands.shared.run_folder.RunFolderRollback'
    """
    module, _, name = class_path.rpartition(".")
    module = new_path(module)
    name = _RENAMED.get(f"{module}.{name}".removeprefix(f"{_PACKAGE}."), name)
    return f"{module}.{name}" if module else name


def renamed_argument(old: str, new: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take an argument by its old name too, where it is given as a keyword.

    Example:
        >>> @renamed_argument("model", "network")
        ... def name_of(network: object) -> str:
        ...     return type(network).__name__
        >>> with warnings.catch_warnings(record=True):
        ...     name_of(model=3)
        'int'
    """

    def taking_both(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs and new not in kwargs:
                told = f"{function.__qualname__} takes {new} now; its old name {old} is taken until version 0.4."
                warnings.warn(told, DeprecationWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return taking_both


class _MovedModules(MetaPathFinder, Loader):
    """Finds modules by their old paths: the module that is given is the one at the new path."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for a module that has moved, and None for any other."""
        return None if new_path(fullname) == fullname else ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        """Put the module at the new path in the place of the one that Python has made."""
        old = module.__name__
        moved = new_path(old)
        warnings.warn(
            f"{old} is {moved} now; the old path is taken until version 0.4.", DeprecationWarning, stacklevel=2
        )
        # Python takes from here what it gives to whoever imports, so that classes are the same by both paths.
        sys.modules[old] = importlib.import_module(moved)


def find_moved_modules() -> None:
    """Let Python find modules by their old paths."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        # First: below a package that has moved Python would find a second copy, with classes of its own.
        sys.meta_path.insert(0, _MovedModules())
