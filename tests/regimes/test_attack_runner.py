"""Regimes attack a view of their network where its conditions hold, and the network itself where they do not."""

import copy

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn

from lightning_adv.attacks import PGD, Attack
from lightning_adv.nn.batchnorm import domain
from lightning_adv.nn.view.attack_view import AttackView
from lightning_adv.regimes import AdvPropTraining, MadryTraining, StandardTraining
from tests.regimes.every_regime import make
from tests.regimes.toy import BACKBONE, ToyData, quiet_trainer

SEEN = []


class Spy(Attack):
    """Notes what it is given to attack, and attacks it by PGD."""

    selects_by_success = False

    def __init__(self, batchnorm: str = "eval") -> None:
        self.batchnorm = batchnorm

    def __call__(self, model, x, y, *, domain=None, generator=None):
        probe = torch.rand(3, *x.shape[1:], generator=torch.Generator().manual_seed(0))
        SEEN.append((model, torch.is_autocast_enabled("cpu"), _logits(model, probe, domain)))
        pgd = PGD(0.1, 2, 0.05, batchnorm=self.batchnorm)
        return pgd(model, x, y, domain=domain, generator=generator)


def _logits(model, probe, through):
    if isinstance(model, AttackView):  # as it stands: a copy would look at its network anew
        with torch.inference_mode(False), torch.no_grad():
            return model(probe)
    with torch.inference_mode(False), torch.no_grad():
        twin = copy.deepcopy(model).eval()
        if through is None:
            return twin(probe).float()
        with domain(twin, through):
            return twin(probe).float()


@pytest.fixture(autouse=True)
def _nothing_seen():
    SEEN.clear()
    yield
    SEEN.clear()


def step(regime, batch=8):
    """One training step by hand."""
    data = ToyData()
    loss = regime.train().training_step((data.x[:batch], data.y[:batch]), 0)
    loss.backward()


def regime_of(kind=MadryTraining, **options):
    torch.manual_seed(0)
    options = {"num_classes": 2, **({} if kind is StandardTraining else {"attack": Spy()}), **options}
    regime = kind(BACKBONE, **options)
    with torch.no_grad():
        for name, buffer in regime.network.named_buffers():
            if "running" in name:
                buffer.copy_(torch.rand(buffer.shape) - (0.5 if "mean" in name else -0.5))
    return regime


@pytest.mark.slow
@pytest.mark.parametrize("name", ["madry", "awp", "mixture_bn", "smooth_gradient", "blockwise"])
def test_regimes_train_and_validate_on_views(tmp_path, name):
    regime = make(name, tmp_path, attack=Spy(), evaluation_attack=Spy())
    quiet_trainer(tmp_path, limit_train_batches=2, limit_val_batches=1, num_sanity_val_steps=0).fit(regime, ToyData())
    assert len(SEEN) == 2 + max(1, len(regime.domains))
    assert all(isinstance(model, AttackView) and model.folded == 4 for model, *_ in SEEN)


@pytest.mark.parametrize("case", ["off", "batch statistics", "hook", "random network"])
def test_the_network_itself_where_a_view_would_differ_or_is_not_wanted(case):
    attack = Spy("batch" if case == "batch statistics" else "eval")
    regime = regime_of(attack=attack, view="off" if case == "off" else "auto")
    if case == "hook":
        regime.network.network.layer1.register_forward_hook(lambda module, inputs, output: output * 2)
    if case == "random network":
        regime.network.network.layer1.append(_Noise())
    for _ in range(2):
        step(regime)
    assert [model for model, *_ in SEEN] == [regime.network] * 2


class _Noise(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


def test_says_why_there_is_no_view(caplog):
    regime = regime_of()
    regime.network.network.layer1.append(_Noise())
    with caplog.at_level("INFO"):
        for _ in range(3):
            step(regime)
    told = [record.getMessage() for record in caplog.records if "view" in record.getMessage()]
    assert len(told) == 1
    assert "since a copy of it in eval mode computes other logits" in told[0]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("attack", [PGD(0.1, 2, 0.05, early_stop=True), PGD(0.1, 2, 0.05)], ids=["selects", "blind"])
def test_an_attack_that_judges_sees_the_precision_that_it_is_judged_in(monkeypatch, attack, autocast):
    seen = []
    monkeypatch.setattr(PGD, "__call__", lambda self, model, x, y, **_: (seen.append(model), x)[1])
    regime = regime_of(attack=attack, attack_precision="same" if autocast else "bf16")
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        step(regime)
    (model,) = seen
    if attack.selects_by_success:
        assert model is regime.network if autocast else model.dtype is None
    else:
        assert model.dtype == torch.bfloat16


class _KnowsSizes(nn.Module):
    """Keeps something by the size of its images, which a view of another size cannot."""

    size = None

    def forward(self, x):
        if self.size != x.shape[-1]:
            self.size, self.ramp = x.shape[-1], torch.linspace(0.5, 1, x.shape[-1])
        return x * self.ramp


def test_an_attack_that_a_view_fails_in_starts_again_on_the_network():
    """Input diversity asks for a second size in the middle of it."""
    attack = PGD(0.1, 6, 0.05, diversity_probability=0.7, diversity_scale=1.5)
    found = []
    for view in ("auto", "off"):
        regime = regime_of(attack=attack, view=view)
        regime.network.network = nn.Sequential(_KnowsSizes(), regime.network.network)
        data = ToyData()
        generator = torch.Generator().manual_seed(3)
        found += [regime.attacked(attack, data.x[:8], data.y[:8], domain=None, generator=generator)]
    assert torch.equal(*found)


def test_a_hook_that_goes_lets_the_view_come_back():
    regime = regime_of()
    handle = regime.network.network.layer1.register_forward_hook(lambda module, inputs, output: None)
    step(regime)
    handle.remove()
    step(regime)
    assert [isinstance(model, AttackView) for model, *_ in SEEN] == [False, True]


def test_the_view_is_that_of_the_weights_of_the_step():
    regime = regime_of()
    optimizer = torch.optim.SGD(regime.network.parameters(), lr=0.5)
    for _ in range(3):
        probe = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        now = _logits(regime.network, probe, None)
        step(regime)
        torch.testing.assert_close(SEEN[-1][2], now, rtol=1e-5, atol=1e-6)
        optimizer.step()
    views = {id(model) for model, *_ in SEEN}
    assert len(views) == 1
    assert not torch.allclose(SEEN[0][2], SEEN[-1][2], atol=1e-3)


def test_another_network_gets_another_view():
    regime = regime_of()
    step(regime)
    regime.network = BACKBONE.build(2)
    probe = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    now = _logits(regime.network, probe, None)
    step(regime)
    torch.testing.assert_close(SEEN[-1][2], now, rtol=1e-5, atol=1e-6)
    assert len(regime.attack_runner._views) == 1


@pytest.mark.slow
def test_views_are_let_go_after_a_run(tmp_path):
    regime = regime_of()
    quiet_trainer(tmp_path, limit_train_batches=1).fit(regime, ToyData())
    assert SEEN
    assert not regime.attack_runner._views


def test_one_precision_after_the_other(tmp_path):
    regime = regime_of(evaluation_attack=Spy())
    for precision in ("bf16-mixed", "32-true", "64-true"):
        quiet_trainer(tmp_path, precision=precision, limit_val_batches=1).validate(regime, ToyData(), verbose=False)
    assert all(isinstance(model, AttackView) for model, *_ in SEEN)
    assert [model.dtype for model, *_ in SEEN] == [torch.bfloat16, None, None]


def test_no_domain_is_the_one_that_is_active():
    """A view is kept for each: the one of before is not taken for another."""
    regime = regime_of(AdvPropTraining)
    for path, buffer in regime.network.named_buffers():
        if "norms.adversarial" in path and "running" in path:
            buffer.mul_(3)
    probe = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    data, noise = ToyData(), torch.Generator().manual_seed(0)
    for name in ("main", "adversarial", "main"):
        with domain(regime.network, name):
            regime.attacked(Spy(), data.x, data.y, generator=noise)
        torch.testing.assert_close(SEEN[-1][2], _logits(regime.network, probe, name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("view", "precision"), [("auto", "bf16"), ("auto", "fp16"), ("off", "bf16"), ("off", "same")])
def test_attack_precision(view, precision):
    regime = regime_of(view=view, attack_precision=precision)
    step(regime)
    model, autocast, _ = SEEN[0]
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    if view == "auto":
        assert (model.dtype, autocast) == (dtype, False)
    else:
        assert (model, autocast) == (regime.network, precision != "same")
    # The update is the network's own, in fp32.
    assert all(parameter.grad.dtype == torch.float32 for parameter in regime.network.parameters())


def test_a_test_is_attacked_in_the_networks_own_precision(tmp_path):
    regime = regime_of(attack_precision="bf16", evaluation_attack=Spy())
    trainer = quiet_trainer(tmp_path, limit_val_batches=1, limit_test_batches=1)
    trainer.validate(regime, ToyData(), verbose=False)
    trainer.test(regime, ToyData(), verbose=False)
    assert [model.dtype for model, *_ in SEEN] == [torch.bfloat16, None]


def test_averaged_weights_are_attacked_in_validation(tmp_path):
    regime = regime_of(evaluation_attack=Spy(), optimizer=lambda p: torch.optim.SGD(p, lr=0.5))
    averaging = EMAWeightAveraging(decay=0.5)
    quiet_trainer(tmp_path, limit_val_batches=1, num_sanity_val_steps=0, callbacks=[averaging]).fit(regime, ToyData())
    validated = SEEN[-1][2]
    probe = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    averaged = _logits(averaging._average_model.module.network, probe, None)
    torch.testing.assert_close(validated, averaged, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(validated, SEEN[-2][2], atol=1e-4)


@pytest.mark.slow
def test_channels_last(tmp_path):
    """All features are, and the network that comes out is the same up to rounding."""
    trained, strides = {}, []
    for channels_last in (False, True):
        torch.manual_seed(0)
        attack = PGD(0.1, 2, 0.05, norm="l2")
        regime = MadryTraining(BACKBONE, num_classes=2, attack=attack, channels_last=channels_last)
        quiet_trainer(tmp_path, max_steps=3).fit(regime.double(), ToyData())
        trained[channels_last] = {name: tensor.float() for name, tensor in regime.state_dict().items()}
        hook = regime.network.network.layer3[0].register_forward_hook(lambda m, i, out: strides.append(out.stride(1)))
        regime(torch.rand(2, 1, 8, 8, dtype=torch.float64))
        hook.remove()
    torch.testing.assert_close(trained[True], trained[False], rtol=1e-5, atol=1e-6)
    assert strides[0] > 1
    assert strides[1] == 1


def test_no_part_of_checkpoints_and_copies(tmp_path):
    regime = regime_of()
    keys = list(regime.state_dict())
    step(regime)
    assert list(regime.state_dict()) == keys
    assert not any(isinstance(module, AttackView) for module in regime.modules())
    twin = copy.deepcopy(regime)
    step(twin)
    assert SEEN[-1][0].is_of(twin.network)


def test_an_empty_batch():
    regime = regime_of(attack=PGD(0.1, 2, 0.05))
    x = torch.rand(0, 1, 8, 8)
    y, noise = torch.zeros(0, dtype=torch.long), torch.Generator().manual_seed(0)
    assert regime.attacked(regime.attack, x, y, generator=noise).shape == x.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"view": "on"}, "view must be one of auto, off, got 'on'"),
        ({"attack_precision": "fp8"}, "attack_precision must be one of same, bf16, fp16, got 'fp8'"),
        ({"compile_view": "graphs"}, "compile_view must be true, false or one of default, reduce-overhead, .*'graphs'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        MadryTraining(BACKBONE, num_classes=2, **arguments)


def test_lower_precision_of_a_network_in_fp64_is_refused(tmp_path):
    regime = regime_of(attack_precision="bf16")
    with pytest.raises(ValueError, match=r"attack_precision is bf16, and trainer\.precision 64-true"):
        quiet_trainer(tmp_path, precision="64-true").fit(regime, ToyData())
