"""What the checkpoint of a run is made of: one table of its fields, and the sentence about one that is not so.

A checkpoint may come from anywhere. Every reader asks here first, and then takes what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from lightning_adv.core.errors import UsageError


class Form(NamedTuple):
    """What a value may be.

    Attributes:
        belongs: It in words, for the error.
        holds: Whether a value is so.
    """

    belongs: str
    holds: Callable[[Any], bool]


class Field(NamedTuple):
    """One field of a checkpoint.

    Attributes:
        path: The keys that lead to it; ``*`` is every key of a mapping or item of a list.
        form: What belongs there.
        required: Whether it must be there; a field that is not may still not be of another form.
    """

    path: tuple[str, ...]
    form: Form
    required: bool = True


def check_form(content: Any, fields: Sequence[Field], *, source: str) -> None:
    """Check that what was read from a file is the checkpoint that a reader takes.

    Args:
        content: What was read.
        fields: The fields that it takes, outer ones before inner ones.
        source: The argument and the file, for the error.

    Raises:
        UsageError: A field is missing, or holds something else than belongs there.

    Example:
        >>> check_form({"epoch": "three"}, [Field(("epoch",), COUNT)], source="checkpoint: last.ckpt")
        Traceback (most recent call last):
        lightning_adv.core.errors.UsageError: checkpoint: last.ckpt has in the field epoch the text 'three', ...
    """
    if not MAPPING.holds(content):
        raise UsageError(f"{source} holds {told(content)}, where the mapping of a checkpoint belongs.")
    for field in fields:
        for name, value, found in _values(content, field.path, ""):
            if found and not field.form.holds(value):
                raise UsageError(f"{source} has in the field {name} {told(value)}, where {field.form.belongs} belongs.")
            if not found and field.required:
                raise UsageError(f"{source} lacks the field {name}, where {field.form.belongs} belongs.")


def told(value: Any) -> str:
    """Say what a value is, in a few words."""
    if value is None:
        return "nothing (None)"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        other = next((key for key in value if not isinstance(key, str)), None)
        if other is not None:
            return f"a mapping with the key {str(other)[:40]}"
        wrong = [(key, type(item).__name__) for key, item in value.items() if not isinstance(item, Tensor)]
        of = f" of {wrong[0][0]!r} to a {wrong[0][1]}" if wrong else ""
        return f"a mapping{of}" if value else "an empty mapping"
    return f"a {type(value).__name__}" + (" without items" if isinstance(value, Sequence) and not value else "")


def _values(content: Any, path: tuple[str, ...], name: str) -> Iterator[tuple[str, Any, bool]]:
    """Yield the name, the value and whether it is there, of every field that a path leads to."""
    if not path:
        yield name, content, True
        return
    key, rest = path[0], path[1:]
    if key == "*":
        if isinstance(content, (Mapping, list, tuple)):
            items = content.items() if isinstance(content, Mapping) else enumerate(content)
            for inner, value in items:
                yield from _values(value, rest, f"{name}[{inner!r}]")
    elif isinstance(content, Mapping):  # what is none was told of the field around it, if it must be one
        inside = f"{name}.{key}" if name else key
        if key in content:
            yield from _values(content[key], rest, inside)
        elif not rest:
            yield inside, None, False


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_tensors(value: Any) -> bool:
    return _is_mapping(value) and all(isinstance(item, Tensor) for item in value.values())


def _is_recipe(value: Any) -> bool:
    return _is_mapping(value) and isinstance(value.get("class_path"), str) and _is_mapping(value.get("init_args", {}))


def _is_progress(value: Any) -> bool:
    return _is_mapping(value) and all(
        _is_mapping(value.get(part))
        and {"ready", "completed"} <= value[part].keys()
        and all(_is_count(number) for number in value[part].values())
        for part in ("total", "current")
    )


def or_none(form: Form) -> Form:
    """Return the form of what may be left empty."""
    return Form(f"{form.belongs}, or None,", lambda value: value is None or form.holds(value))


def list_of(what: str, holds: Callable[[Any], bool]) -> Form:
    """Return the form of a list, by what its items are in words and whether one is."""
    return Form(f"a list of {what}", lambda value: isinstance(value, (list, tuple)) and all(map(holds, value)))


COUNT = Form("a whole number", _is_count)
TEXT = Form("text", lambda value: isinstance(value, str))
SWITCH = Form("true or false", lambda value: isinstance(value, bool))
MAPPING = Form("a mapping with names as keys", _is_mapping)
STATE = Form("a mapping", lambda value: isinstance(value, Mapping))
TENSORS = Form("a mapping of names to tensors", _is_tensors)
WEIGHTS = Form("a mapping of names to tensors, at least one,", lambda value: _is_tensors(value) and bool(value))
RECIPE = Form("a class_path and init_args", _is_recipe)
FACTORY = Form("a class_path and init_args", lambda value: _is_recipe(value) and "init_args" in value)
VERSION = Form("a version such as 2.6.0", lambda value: isinstance(value, str) and value[:1].isdigit() and "." in value)
PROGRESS = Form("a total and a current mapping of counts", _is_progress)
TENSOR = Form("a tensor", lambda value: isinstance(value, Tensor))
CLASSES = Form("a whole number from 2 on", lambda value: _is_count(value) and value >= 2)
SHAPE = Form(
    "three positive whole numbers (C, H, W)",
    lambda value: isinstance(value, (list, tuple)) and len(value) == 3 and all(_is_count(n) and n for n in value),
)

_WHAT_IT_IS = (
    Field(("state_dict",), WEIGHTS),
    Field(("epoch",), COUNT),
    Field(("global_step",), COUNT),
    Field(("pytorch-lightning_version",), VERSION),
)
REGIME = (
    Field(("regime",), MAPPING),
    Field(("regime", "class_path"), TEXT),
    Field(("regime", "seed"), or_none(COUNT), required=False),
    Field(("regime", "train_loss"), TENSORS, required=False),
    Field(("regime", "network_changed_by"), or_none(TEXT), required=False),
    Field(("regime", "class_names"), or_none(list_of("names", TEXT.holds)), required=False),
    Field(("regime", "image_shape"), or_none(SHAPE), required=False),
    Field(("regime", "data"), or_none(MAPPING), required=False),
    Field(("regime", "data", "name"), TEXT),
    Field(("regime", "data", "class_path"), TEXT),
    Field(("regime", "data", "class_names"), or_none(list_of("names", TEXT.holds)), required=False),
    Field(("regime", "data", "image_shape"), or_none(SHAPE), required=False),
    *(Field(("regime", "data", part), MAPPING, required=False) for part in ("images", "fingerprints")),
    Field(("regime", "data", "images", "*"), COUNT),
    Field(("regime", "changes"), list_of("mappings", MAPPING.holds), required=False),
    *(Field(("regime", part), MAPPING, required=False) for part in ("trainer", "optimizers")),
    Field(("regime", "optimizers", "optimizer"), TEXT),
    Field(("regime", "optimizers", "options"), MAPPING),
    Field(("regime", "optimizers", "scheduler"), or_none(TEXT)),
)
"""What a regime of this package adds."""

ARGUMENTS = (
    Field(("hyper_parameters",), MAPPING),
    Field(("hyper_parameters", "backbone"), MAPPING),
    Field(("hyper_parameters", "num_classes"), or_none(CLASSES), required=False),
    Field(("hyper_parameters", "inference_domain"), or_none(TEXT), required=False),
    *(
        Field(("hyper_parameters", name), or_none(RECIPE), required=False)
        for name in ("attack", "evaluation_attack", "objective", "weight_perturbation")
    ),
    *(Field(("hyper_parameters", name), or_none(FACTORY), required=False) for name in ("optimizer", "scheduler")),
    *(  # a backbone is written by its arguments alone, or as other recipes are
        Field(("hyper_parameters", "backbone", *inside, name), or_none(form), required=False)
        for inside in ((), ("init_args",))
        for name, form in (("activation", TEXT), ("activation_options", MAPPING))
    ),
)
"""The arguments that the regime was made with."""

NETWORK = (*_WHAT_IT_IS, *REGIME, *ARGUMENTS)
"""The fields by which a run's network is built again."""

WEIGHTS_OF_A_RUN = (_WHAT_IT_IS[0], *REGIME, *ARGUMENTS)
"""The fields by which a run's weights are loaded into a network that is there."""

LOADABLE = (
    *(field for field in _WHAT_IT_IS if field.path[0] in ("state_dict", "pytorch-lightning_version")),
    *(field._replace(required=False) if len(field.path) == 1 else field for field in REGIME),
    *(field._replace(required=len(field.path) == 1) for field in ARGUMENTS),
    Field(("hparams_name",), or_none(TEXT), required=False),
)
"""The fields by which a regime's class loads itself; the caller may give arguments that are not there."""

_LOOPS = ("fit_loop", "validate_loop", "test_loop", "predict_loop")
TESTABLE = (
    *_WHAT_IT_IS,
    *(field._replace(required=False) if len(field.path) == 1 else field for field in (*REGIME, *ARGUMENTS)),
    Field(("loops",), MAPPING),
    *(Field(("loops", loop), MAPPING) for loop in _LOOPS),
    *(Field(("loops", loop, "state_dict"), MAPPING, required=False) for loop in _LOOPS),
    *(Field(("loops", loop, "batch_progress"), PROGRESS, required=False) for loop in _LOOPS),
    Field(("callbacks",), MAPPING, required=False),
    Field(("callbacks", "*"), STATE),
)
"""The fields of what Lightning's Trainer validates, tests and predicts."""

_FIT = ("loops", "fit_loop")
_STEPS = (*_FIT, "epoch_loop.automatic_optimization.optim_progress")
RESUMABLE = (
    *TESTABLE,
    Field((*_FIT, "epoch_progress"), PROGRESS),
    Field((*_FIT, "epoch_loop.state_dict"), MAPPING),
    Field((*_FIT, "epoch_loop.state_dict", "_batches_that_stepped"), COUNT, required=False),
    *(Field((*_FIT, f"epoch_loop.{part}batch_progress"), PROGRESS) for part in ("", "val_loop.")),
    *(Field((*_FIT, f"epoch_loop.{part}batch_progress", "is_last_batch"), SWITCH) for part in ("", "val_loop.")),
    Field((*_FIT, "epoch_loop.scheduler_progress"), PROGRESS),
    Field(_STEPS, MAPPING),
    Field((*_STEPS, "optimizer"), MAPPING),
    *(Field((*_STEPS, "optimizer", part), PROGRESS) for part in ("step", "zero_grad")),
    Field(("optimizer_states",), list_of("mappings", STATE.holds)),
    Field(("optimizer_states", "*", "state"), STATE),
    Field(("optimizer_states", "*", "state", "*"), STATE),
    Field(("optimizer_states", "*", "param_groups"), list_of("mappings", MAPPING.holds)),
    Field(("optimizer_states", "*", "param_groups", "*", "params"), list_of("whole numbers", _is_count)),
    Field(("lr_schedulers",), list_of("mappings", MAPPING.holds)),
    Field(("lr_schedulers", "*", "last_epoch"), COUNT, required=False),
)
"""The fields that a run goes on with. Without its loops Lightning would begin at the first epoch, silently."""

_KEEPERS = ("BestCheckpoint", "LastCheckpoint")


def check_keepers(callbacks: Mapping[str, Any], *, source: str) -> None:
    """Check the states of the two checkpoints that every run keeps.

    Args:
        callbacks: The states of callbacks by their keys, which begin with the class's name.
        source: The argument and the file, for the error.

    Raises:
        UsageError: A field has another form than it must have.
    """
    forms = {
        "dirpath": or_none(TEXT),
        "best_model_path": TEXT,
        "kth_best_model_path": TEXT,
        "last_model_path": TEXT,
        "best_k_models": TENSORS,
        "kth_value": TENSOR,
        "best_model_score": or_none(TENSOR),
        "current_score": or_none(TENSOR),
    }
    for key in callbacks:
        if key.startswith(_KEEPERS):
            fields = [Field(("callbacks", key, name), form, required=False) for name, form in forms.items()]
            check_form({"callbacks": callbacks}, fields, source=source)


def unlike_recipe(regime: Mapping[str, Any]) -> str | None:
    """Return why the network of a checkpoint is not what its backbone's recipe gives, and what to do; None if it is.

    The keys of such a network may be those of the recipe's, which would load them and compute something else.

    Args:
        regime: What the checkpoint says of its regime.
    """
    class_path = str(regime.get("class_path"))
    changed_by = regime.get("network_changed_by")
    if changed_by is None and ("network_changed_by" in regime or class_path.startswith("lightning_adv.regimes.")):
        return None
    if changed_by is None:
        why = "is of another package and does not say that its network is what the backbone's recipe gives"
    else:
        why = f"trains another network than the backbone's recipe gives, by {changed_by}"
    return (
        f"is the checkpoint of {class_path}, which {why}: only that class can build the network again. Measure it with "
        f"'lightning-adv test' and the run's config.yaml, or in Python with {class_path.rpartition('.')[2]}."
        "load_from_checkpoint and lightning_adv.evaluation.evaluate."
    )
