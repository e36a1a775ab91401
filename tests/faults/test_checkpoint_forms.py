"""Checkpoints whose parts have the wrong form: each reader refuses them in one sentence, or does without the part."""

from __future__ import annotations

import copy
import random
from functools import partial

import pytest
import torch

from lightning_adv.callbacks import BestCheckpoint, LastCheckpoint
from lightning_adv.callbacks.local_response import load_source
from lightning_adv.commands.export.checkpoint import export_checkpoint
from lightning_adv.commands.shared.networks import load_network
from lightning_adv.commands.shared.run_folder import check_run_checkpoint
from lightning_adv.core.errors import UsageError
from lightning_adv.nn.backbones import Backbone
from lightning_adv.regimes import MadryTraining
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, quiet_trainer

OPTIMIZER = partial(torch.optim.SGD, lr=0.05, momentum=0.9)


def regime():
    schedule = partial(torch.optim.lr_scheduler.StepLR, step_size=3)
    attacks = {"attack": ATTACK, "evaluation_attack": ATTACK}
    return MadryTraining(BACKBONE, num_classes=2, optimizer=OPTIMIZER, scheduler=schedule, **attacks)


def trainer(folder, epochs):
    keepers = [BestCheckpoint(), LastCheckpoint()]
    return quiet_trainer(folder, max_epochs=epochs, enable_checkpointing=True, callbacks=keepers)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    trained = trainer(folder, 1)
    trained.fit(regime(), ToyData())
    trained.save_checkpoint(folder / "whole.ckpt")
    return torch.load(folder / "whole.ckpt", weights_only=True)


READERS = {
    "evaluate": lambda path: load_network(str(path), None, num_classes=2, domain=None),
    "export": lambda path: export_checkpoint(path, path.parent / "export", overwrite=True),
    "source": lambda path: load_source(path, 2, (1, 8, 8)),
    "backbone": lambda path: Backbone(
        BACKBONE.name, in_channels=1, options=BACKBONE.options, checkpoint=str(path)
    ).build(2),
    "load": lambda path: MadryTraining.load_from_checkpoint(path),
    "resume": lambda path: check_run_checkpoint(path, resumes=True),
    "test": lambda path: check_run_checkpoint(path, resumes=False),
}

ABSTRACT = {"class_path": "lightning_adv.attacks.base.Attack", "init_args": {}}
MISTAKES = [None, "text", -1, 2.5, float("nan"), True, [], {}, {0: 1}, ["text"], torch.zeros(2), ABSTRACT]


def _paths(value, path=()):
    yield path
    if isinstance(value, dict) and len(path) < 6:
        for key, inner in value.items():
            yield from _paths(inner, (*path, key))
    elif isinstance(value, list) and len(path) < 6:
        for index, inner in enumerate(value):
            yield from _paths(inner, (*path, index))


def _mutated(content, path, mistake):
    """Return the content with a field that is left out (``delete``) or replaced."""
    changed = copy.deepcopy(content)
    if not path:
        return mistake
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    if mistake == "delete":
        del holder[path[-1]]
    else:
        holder[path[-1]] = copy.deepcopy(mistake)
    return changed


def _refused(read, path):
    """Return the sentence by which a reader refuses a file; None where it takes it."""
    try:
        read(path)
    except UsageError as error:
        return str(error)
    return None


def _draw(content, number, seed):
    """Draw mutations, the upper fields more often than what lies deep: there are hundreds of weights."""
    drawn, rng = [], random.Random(seed)
    by_depth = {}
    for path in _paths(content):
        by_depth.setdefault(min(len(path), 4), []).append(path)
    for _ in range(number):
        path = rng.choice(by_depth[rng.choice(list(by_depth))])
        drawn.append((path, rng.choice(["delete", *MISTAKES]) if path else rng.choice(MISTAKES)))
    return drawn


def _check(content, folder, mutations, readers):
    """Let readers read every mutation; return how many were refused."""
    path, refusals = folder / "mutated.ckpt", 0
    for number, mutation in enumerate(mutations):
        torch.save(_mutated(content, *mutation), path)
        for name in readers(number):
            try:
                told = _refused(READERS[name], path)
            except Exception as error:
                error.add_note(f"{name} of {mutation}")
                raise
            assert told is None or "\n" not in told
            refusals += told is not None
    return refusals


@pytest.mark.slow
def test_mutations_are_refused_by_a_sentence_or_change_nothing(content, tmp_path):
    names = list(READERS)  # in turn: each takes some 30 ms
    assert _check(content, tmp_path, _draw(content, 35, seed=1), lambda number: [names[number % len(names)]]) > 7


CASES = {
    "checkpoint: PATH lacks the field hyper_parameters": ("evaluate", ("hyper_parameters",), "delete"),
    "hyper_parameters nothing (None), where a mapping": ("export", ("hyper_parameters",), None),
    "hyper_parameters the text 'text', where a mapping": ("source", ("hyper_parameters",), "text"),
    "PATH has in the field state_dict a mapping with the key 0": ("test", ("state_dict",), {0: torch.zeros(1)}),
    "PATH holds the keys": ("backbone", ("state_dict",), {0: torch.zeros(1)}),
    "PATH lacks the field pytorch-lightning_version": ("load", ("pytorch-lightning_version",), "delete"),
    "ckpt_path: PATH lacks the field loops.fit_loop": ("resume", ("loops",), {}),
    "lacks the field loops.fit_loop.epoch_progress": ("resume", ("loops", "fit_loop"), {}),
    "PATH: hyper_parameters: MadryTraining has no argument 'lr'": ("load", ("hyper_parameters", "lr"), 0.1),
    "Attack is the base of such classes": ("load", ("hyper_parameters", "attack"), ABSTRACT),
    "steps of PGD is 'many', which is not of type int": (
        "export", ("hyper_parameters", "evaluation_attack", "init_args", "steps"), "many",
    ),
    "optimizer_states the text 'text', where a list": ("resume", ("optimizer_states",), "text"),
    "regime the text 'text', where a mapping": ("backbone", ("regime",), "text"),
}  # fmt: skip


@pytest.mark.parametrize("sentence", CASES)
def test_the_sentence_says_which_field_of_which_file(sentence, content, tmp_path):
    reader, *mutation = CASES[sentence]
    path = tmp_path / "mutated.ckpt"
    torch.save(_mutated(content, *mutation), path)
    assert sentence.replace("PATH", str(path)) in str(_refused(READERS[reader], path))


def test_a_checkpoint_that_holds_itself_is_refused(tmp_path):
    content = {}
    content["model"] = content
    torch.save(content, tmp_path / "itself.ckpt")
    for read in READERS.values():
        assert _refused(read, tmp_path / "itself.ckpt") is not None


@pytest.mark.slow
def test_a_whole_checkpoint_is_taken_by_every_reader_and_goes_on(content, tmp_path):
    path = tmp_path / "whole.ckpt"
    torch.save(content, path)
    assert [_refused(read, path) for read in READERS.values()] == [None] * len(READERS)
    resumed = trainer(tmp_path, 2)
    resumed.fit(regime(), ToyData(), ckpt_path=path, weights_only=True)
    assert resumed.current_epoch == 2
