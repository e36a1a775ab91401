"""The parts that the benchmarks share: what they time is what they say. No time is asserted."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.nn.functional import cross_entropy


def test_the_bound_is_k_evaluations_and_one_training_pass(timing, workload):
    """Counted by a hook: as many forwards in eval mode as the attack has steps, one in train mode."""
    forwards: list[bool] = []
    network = workload.regime().network
    network.network.fc.register_forward_hook(lambda module, *_: forwards.append(module.training))
    attack = timing.gradients_alone(network, replace(workload, steps=3).attack(), workload.batch()[0])
    timing.loop_of(lambda x, y: cross_entropy(network(attack(x, y)), y), network)([workload.batch()])
    assert forwards == [False, False, False, True]


def test_the_update_has_gradients_but_moves_no_weight(timing, workload):
    network = workload.regime().network
    before = [parameter.clone() for parameter in network.parameters()]
    timing.loop_of(lambda x, y: cross_entropy(network(x), y), network)([workload.batch()])
    for parameter, old in zip(network.parameters(), before, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter, old)


def test_a_call_is_one_step_of_the_trainer(timing, workload):
    ended: list[int] = []

    class Count(Callback):
        def on_train_batch_end(self, trainer, *_):
            ended.append(trainer.global_step)

    contender = timing.Contender(workload, partial(quiet_trainer(Count()).fit, workload.regime()))
    for calls in (1, 2, 3):
        seconds = contender()
        assert seconds.step > seconds.attack == 0
        assert ended == list(range(1, calls + 1))
    contender.close()
    assert ended == [1, 2, 3]


def test_an_error_inside_a_loop_reaches_the_caller(timing, workload):
    class Fail(Callback):
        def on_train_batch_end(self, *_):
            raise RuntimeError("told")

    contender = timing.Contender(workload, partial(quiet_trainer(Fail()).fit, workload.regime()))
    with pytest.raises(RuntimeError, match="told"):
        contender()
    contender.close()


def quiet_trainer(callback):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, callbacks=[callback], **quiet)


def test_a_twin_has_its_own_flags_and_the_tensors_that_it_was_told_to_own(timing):
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).train()
    weight, running_mean = network[0].weight, network[1].running_mean
    copy = timing.twin(network, own=[running_mean]).eval()
    assert network[1].training
    assert copy[0].weight is weight
    assert copy[1].running_mean is not running_mean
    assert torch.equal(copy[1].running_mean, running_mean)


def test_the_attacks_share_of_a_step(timing, workload):
    """By hand, with a clock that moves when it is told to: 3 seconds inside the attack, 2 around it."""
    now = [0.0]
    watch = timing.Stopwatch(lambda: now[0])

    def wait(seconds):
        now[0] += seconds
        return seconds

    attack = watch.over(wait)

    def loop(loader):
        for _ in loader:
            wait(2.0)
            assert [attack(1.0), attack(2.0)] == [1.0, 2.0]

    attack(9.0)  # before the step: not its time
    own = replace(workload, clock=lambda: now[0], passes=2, rounds=3)
    assert timing.take_turns({"one": loop, "two": loop}, own, watch) == dict.fromkeys(("one", "two"), 3 * [(5.0, 3.0)])


def test_the_command_line_changes_the_workloads_that_it_names(timing):
    args = timing.parse_arguments("", 5, arguments=["--networks", "small_cnn", "--rounds", "2", "--clock", "cpu"])
    (name, workload), own = *args.workloads.items(), timing.WORKLOADS["small_cnn"]
    assert name == "small_cnn"
    assert workload == replace(own, rounds=2, steps=5, clock=timing.CLOCKS["cpu"])


def test_the_cells_are_of_ratios_round_by_round(timing):
    """By hand: 2/1, 2/2 and 9/3; their median is 2, although the medians' ratio is 1."""
    assert timing.cells([2.0, 2.0, 9.0], [1.0, 2.0, 3.0]) == "2000.0 | 2.000 | 1.000 to 3.000"
