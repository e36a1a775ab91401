"""What the checkpoint of a run is made of: one table of its fields for each reader.

A checkpoint may come from anywhere. Every reader asks here first, and then takes what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_adv.core.errors import UsageError
from lightning_adv.nn.weights.form import (
    CLASSES,
    COUNT,
    FACTORY,
    MAPPING,
    PROGRESS,
    RECIPE,
    SHAPE,
    STATE,
    SWITCH,
    TENSOR,
    TENSORS,
    TEXT,
    VERSION,
    WEIGHTS,
    Field,
    check_form,
    is_count,
    list_of,
    or_none,
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
    Field(("regime", "modules"), TEXT, required=False),
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
    *(Field(("regime", part), MAPPING, required=False) for part in ("trainer", "optimizers", "coverage")),
    Field(("regime", "coverage", "*"), MAPPING),
    Field(("regime", "coverage", "*", "used"), COUNT),
    Field(("regime", "coverage", "*", "available"), or_none(COUNT)),
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
    Field(("optimizer_states", "*", "param_groups", "*", "params"), list_of("whole numbers", is_count)),
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


def check_activation(theirs: Mapping[str, Any], ours: Mapping[str, Any], source: str) -> None:
    """Check that two recipes compute with the same activation.

    The keys of two activations are mostly the same, so that the wrong one would load without a word.

    Args:
        theirs: The recipe that the weights were trained with, a Backbone's arguments.
        ours: The recipe that they are to be loaded into.
        source: The argument and the file that gave the weights, for the error.

    Raises:
        UsageError: They do not.
    """

    def told(of: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        name, options = of.get("activation"), of.get("activation_options")
        if name == "smooth_backward_relu":  # differs from ReLU in its gradient alone
            name, options = None, None
        return "of its architecture" if name is None else name, {} if options is None else dict(options)

    pair = told(theirs), told(ours)
    if pair[0] != pair[1]:
        trained, wanted = (name + (f" with {options}" if options else "") for name, options in pair)
        raise UsageError(
            f"{source} was trained with the activation {trained}, and the network's is {wanted}: the weights "
            "would fit, but compute something else."
        )
