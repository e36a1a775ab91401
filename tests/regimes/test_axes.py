"""What every regime does on the axes that a user turns: resume, precision, compilation, averaging, accumulation."""

import copy

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.attacks import PGD
from lightning_adv.nn.batchnorm import domain
from tests.regimes.every_regime import REGIMES, make, still
from tests.regimes.toy import Graphs, ResumableToyData, ToyData, quiet_trainer

each_regime = pytest.mark.parametrize("name", REGIMES)


class SaveAt(Callback):
    """Saves a checkpoint after a step, in the middle of an epoch."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def momenta(trainer):
    return [state["momentum_buffer"] for state in trainer.optimizers[0].state_dict()["state"].values()]


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@each_regime
def test_resumed_in_the_middle_is_bit_identical(tmp_path, name):
    whole = make(name, tmp_path)
    path = tmp_path / "middle.ckpt"
    trainer = quiet_trainer(tmp_path, max_epochs=3, callbacks=[SaveAt(6, path)])
    trainer.fit(whole, ResumableToyData())
    resumed = make(name, tmp_path)
    with torch.no_grad():
        for parameter in resumed.parameters():  # what is not loaded shows
            parameter += 1
    again = quiet_trainer(tmp_path, max_epochs=3)
    torch.manual_seed(1234)
    again.fit(resumed, ResumableToyData(), ckpt_path=path, weights_only=True)
    assert_same(whole.state_dict(), resumed.state_dict())
    assert len(momenta(trainer)) > 0
    assert all(torch.equal(a, b) for a, b in zip(momenta(trainer), momenta(again), strict=True))
    assert trainer.callback_metrics["train/loss"] == again.callback_metrics["train/loss"]


@each_regime
def test_checkpoint_needs_nothing_else(tmp_path, name):
    evaluation = PGD(eps=0.1, steps=2, step_size=0.05, start="zero")
    module = make(name, tmp_path, num_classes=None, evaluation_attack=evaluation)
    trainer = quiet_trainer(tmp_path)
    trainer.fit(module, ToyData())
    trainer.save_checkpoint(tmp_path / "it.ckpt")
    (tmp_path / "pretrained.pth").unlink(missing_ok=True)
    loaded = REGIMES[name][0].load_from_checkpoint(tmp_path / "it.ckpt", weights_only=True)
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(loaded.eval()(x), module.eval()(x))
    reported = quiet_trainer(tmp_path).test(loaded, ToyData(), verbose=False)
    assert reported == quiet_trainer(tmp_path).test(module, ToyData(), verbose=False)


@each_regime
@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_precision(tmp_path, name, precision):
    """Near fp32's weights after two steps, and not the same: the precision is really used."""
    weights = {}
    for used in ("32-true", precision):
        module = make(name, tmp_path, **still(name))
        quiet_trainer(tmp_path, precision=used, limit_train_batches=2, limit_val_batches=0).fit(module, ToyData())
        weights[used] = torch.cat([p.detach().float().flatten() for p in module.network.parameters()])
    assert not torch.equal(weights["32-true"], weights[precision])
    distance = torch.linalg.vector_norm(weights[precision] - weights["32-true"])
    assert distance < 0.02 * torch.linalg.vector_norm(weights["32-true"])


@each_regime
def test_compiled_network_trains_the_same(tmp_path, name, monkeypatch):
    plain = make(name, tmp_path)
    quiet_trainer(tmp_path, max_epochs=2, limit_val_batches=2).fit(plain, ToyData())
    torch._dynamo.reset()
    backend, after_epoch = Graphs(), []
    original = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: original(self, backend=backend, fullgraph=True))

    class Count(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            after_epoch.append(backend.count)

    compiled = make(name, tmp_path, compile=True)
    quiet_trainer(tmp_path, max_epochs=2, limit_val_batches=2, callbacks=[Count()]).fit(compiled, ToyData())
    assert after_epoch[0] > 0
    assert after_epoch[1] == after_epoch[0], "recompiled after the first epoch"
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[key], value, msg=key)
    torch._dynamo.reset()


@each_regime
def test_weight_averaging(tmp_path, name):
    """Lightning's own callback: what is tested afterwards are the averaged weights, by hand here."""
    decay, seen = 0.5, []

    class Record(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(copy.deepcopy(pl_module.network.state_dict()))

    module = make(name, tmp_path)
    average = EMAWeightAveraging(decay=decay, use_buffers=False)
    quiet_trainer(tmp_path, callbacks=[Record(), average], limit_val_batches=0).fit(module, ToyData())
    weight = next(key for key in seen[0] if key.endswith("layer1.0.weight"))
    expected = seen[0][weight]
    for state in seen[1:]:
        expected = decay * expected + (1 - decay) * state[weight]
    torch.testing.assert_close(module.network.state_dict()[weight], expected)


@each_regime
def test_accumulated_gradients_are_those_of_the_sum(tmp_path, name):
    """Two batches a step, with BatchNorm still: the gradient of a step is the mean of its batches' gradients."""
    if name == "awp":  # its perturbation is each batch's own
        return
    weights = []
    for size, batches in ((8, 2), (16, 1)):
        module = make(name, tmp_path, **still(name))
        trainer = quiet_trainer(tmp_path, accumulate_grad_batches=batches, limit_val_batches=0)
        trainer.fit(module, ToyData(batch_size=size))
        assert trainer.global_step == 2
        weights.append(module.state_dict())
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], msg=key)


@each_regime
def test_train_flags_after_validation(tmp_path, name):
    """Validation and its attack give the flags back one by one; held modules stay held."""
    module = make(name, tmp_path, running_statistics_epochs=1)
    flags = []

    class Look(Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            norms = [m.training for m in pl_module.network.modules() if isinstance(m, _BatchNorm)]
            flags.append((trainer.current_epoch, set(norms)))

    quiet_trainer(tmp_path, max_epochs=2, val_check_interval=2, callbacks=[Look()]).fit(module, ToyData())
    held = {False} if name in ("conventional", "blockwise") else set()
    assert {epoch: values | held for epoch, values in flags} == {0: {True} | held, 1: {False}}
    if len(module.domains) > 1:
        with domain(module.network, "adversarial"):
            assert module.network.network.layer1[1].domain_switch.active == "adversarial"
