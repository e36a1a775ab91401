"""What regimes do on the axes that a user turns: precision, compilation, averaging, accumulation.

``tests/testing/test_regimes.py`` checks what all of them promise; here are those that an axis could treat otherwise.
"""

import pytest
import torch
from lightning.pytorch import Callback
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.nn.batchnorm import domain
from tests.regimes.every_regime import make, still
from tests.regimes.toy import Graphs, ToyData, quiet_trainer


def regimes(*names):
    return pytest.mark.parametrize("name", names)


@pytest.mark.slow
@regimes("madry", "awp", "mixture_bn")
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


@pytest.mark.slow
@regimes("madry", "awp", "fine_grained", "smooth_gradient", "blockwise")
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


@pytest.mark.slow
@regimes("madry", "trades", "mixture_bn", "batchnorm")
def test_accumulated_gradients_are_those_of_the_sum(tmp_path, name):
    """Two batches a step, with BatchNorm still: the gradient of a step is the mean of its batches' gradients."""
    weights = []
    for size, batches in ((8, 2), (16, 1)):
        module = make(name, tmp_path, **still(name))
        trainer = quiet_trainer(tmp_path, accumulate_grad_batches=batches, limit_val_batches=0)
        trainer.fit(module, ToyData(batch_size=size))
        assert trainer.global_step == 2
        weights.append(module.state_dict())
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], msg=key)


@pytest.mark.slow
@regimes("madry", "mixture_bn", "blockwise")
def test_train_flags_after_validation(tmp_path, name):
    """Validation and its attack give the flags back one by one; held modules stay held."""
    module = make(name, tmp_path, running_statistics_epochs=1)
    flags = []

    class Look(Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            norms = [m.training for m in pl_module.network.modules() if isinstance(m, _BatchNorm)]
            flags.append((trainer.current_epoch, set(norms)))

    quiet_trainer(tmp_path, max_epochs=2, val_check_interval=2, callbacks=[Look()]).fit(module, ToyData())
    held = {False} if name == "blockwise" else set()
    assert {epoch: values | held for epoch, values in flags} == {0: {True} | held, 1: {False}}
    if len(module.domains) > 1:
        with domain(module.network, "adversarial"):
            assert module.network.network.layer1[1].domain_switch.active == "adversarial"
