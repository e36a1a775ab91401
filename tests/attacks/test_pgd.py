import copy

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from scipy import stats
from scipy.special import log_softmax, softmax
from torch import nn
from torch.nn import functional as F

from lightning_adv.attacks import GD, L1, L2, MIFGSM, PGD, Attack, Linf
from tests.seeded import seeded

ORDER = {"linf": np.inf, "l2": 2}


class Prototypes(nn.Module):
    """Logits are negative squared distances to one point for each class: gradients by hand in one line."""

    def __init__(self, classes=3, pixels=12):
        super().__init__()
        self.points = nn.Parameter(
            torch.rand(classes, pixels, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        )

    def forward(self, x):
        return -(x.flatten(1)[:, None] - self.points).square().sum(2)


class Counting(nn.Module):
    """Counts its calls and remembers the sizes of its input."""

    def __init__(self, network):
        super().__init__()
        self.network, self.sizes = network, []

    def forward(self, x):
        self.sizes.append(tuple(x.shape[-2:]))
        return self.network(x)


@pytest.fixture
def batch():
    return torch.rand(8, 3, 2, 2, generator=seeded(1), dtype=torch.float64), torch.arange(8) % 3


def _by_hand(points, x, y, *, order, eps, step_size, steps, momentum=0.0, sign=1.0, direction="steepest"):
    """MI-FGSM (Dong et al. 2018, algorithm 1) on :class:`Prototypes`, sample by sample in numpy."""
    results = []
    for image, label in zip(x.flatten(1).numpy(), y.numpy(), strict=True):
        adversarial, velocity = image.copy(), np.zeros_like(image)
        for _ in range(steps):
            error = softmax(-np.square(adversarial - points).sum(1)) - np.eye(len(points))[label]
            gradient = sign * error @ (-2 * (adversarial - points))
            velocity = momentum * velocity + gradient / np.abs(gradient).sum()
            signed = order == np.inf or direction == "sign"
            ahead = np.sign(velocity) if signed else velocity / np.linalg.norm(velocity)
            delta = adversarial + step_size * ahead - image
            length = np.linalg.norm(delta)
            delta = np.clip(delta, -eps, eps) if order == np.inf else delta * min(1, eps / length)
            adversarial = np.clip(image + delta, 0, 1)
        results.append(adversarial)
    return np.reshape(results, x.shape)


@pytest.mark.parametrize("momentum", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_loop_by_hand(batch, norm, momentum):
    model, (x, y) = Prototypes(), batch
    settings = {"eps": 0.3, "step_size": 0.12, "steps": 6, "momentum": momentum}
    x_adv = PGD(norm=norm, start="zero", **settings)(model, x, y)
    expected = _by_hand(model.points.detach().numpy(), x, y, order=ORDER[norm], **settings)
    np.testing.assert_allclose(x_adv.numpy(), expected, rtol=0, atol=1e-12)
    assert 0.05 < np.abs(expected - x.numpy()).max() <= 0.3 + 1e-12


@pytest.mark.parametrize("label", ["random", "least_likely"])
def test_targets_by_hand(batch, label):
    model, (x, y) = Prototypes(), batch
    x_adv = PGD(eps=0.4, step_size=0.05, steps=20, start="zero", label=label)(model, x, y, generator=seeded(5))
    logits = model(x).detach()
    target = logits.argmin(1)
    if label == "random":
        target = (y + torch.randint(1, 3, y.shape, generator=seeded(5))) % 3
    expected = _by_hand(
        model.points.detach().numpy(), x, target, order=np.inf, eps=0.4, step_size=0.05, steps=20, sign=-1.0
    )
    np.testing.assert_allclose(x_adv.numpy(), expected, rtol=0, atol=1e-12)
    before, after = (log_softmax(model(images).detach().numpy(), axis=1) for images in (x, x_adv))
    rows = np.arange(len(y))
    assert (after[rows, target] > before[rows, target]).all()
    assert (after.argmax(1) == target.numpy()).mean() > 0.8


@pytest.mark.parametrize("loss", ["kl", "margin"])
def test_other_losses_against_a_plain_loop(batch, loss):
    model, (x, y) = Prototypes(), batch
    x_adv = PGD(eps=0.2, step_size=0.06, steps=5, loss=loss)(model, x, y, generator=seeded())
    adversarial = (x + Linf().sample(x, 0.2, seeded())).clamp(0, 1)
    clean = F.softmax(model(x), dim=1).detach()
    for _ in range(5):
        adversarial.requires_grad_()
        logits = model(adversarial)
        if loss == "kl":  # as TRADES' authors write it
            value = nn.KLDivLoss(reduction="sum")(F.log_softmax(logits, dim=1), clean)
        else:
            others = logits.masked_fill(F.one_hot(y, 3).bool(), -1e9).max(1).values
            value = (others - logits[torch.arange(8), y]).sum()
        (gradient,) = torch.autograd.grad(value, adversarial)
        adversarial = adversarial.detach() + 0.06 * gradient.sign()
        adversarial = torch.min(torch.max(adversarial, x - 0.2), x + 0.2).clamp(0, 1)
    torch.testing.assert_close(x_adv, adversarial, rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
@pytest.mark.parametrize("label", ["true", "least_likely"])
def test_restarts_keep_the_worst_of_each_sample(batch, loss, label):
    model, (x, y) = Prototypes(), batch
    settings = {"eps": 0.25, "step_size": 0.1, "steps": 1, "loss": loss, "label": label}
    restarted = PGD(**settings, restarts=4)(model, x, y, generator=seeded())
    generator = seeded()
    runs = [PGD(**settings)(model, x, y, generator=generator) for _ in range(4)]
    target = y if label == "true" else model(x).argmin(1)
    winners = set()
    for i in range(len(x)):
        ranks = []
        for run in runs:
            logits = model(run[i : i + 1]).detach().numpy()[0]
            own, others = logits[target[i]], np.delete(logits, target[i])
            won = (logits.argmax() != target[i].item()) if label == "true" else (logits.argmax() == target[i].item())
            cost = -log_softmax(logits)[target[i]] if loss == "cross_entropy" else others.max() - own
            # then, of a target that was not reached, what is misclassified at least, as an evaluation counts it
            ranks.append((bool(won), bool(logits.argmax() != y[i].item()), cost if label == "true" else -cost))
        winner = max(range(4), key=ranks.__getitem__)
        winners.add(winner)
        assert torch.equal(restarted[i], runs[winner][i])
    assert len(winners) > 1  # else keeping the best run as a whole would have passed


def test_signed_steps_in_l2_by_hand(batch):
    model, (x, y) = Prototypes(), batch
    settings = {"eps": 0.3, "step_size": 0.08, "steps": 6, "direction": "sign"}
    x_adv = PGD(**settings, norm="l2", start="zero")(model, x, y)
    expected = _by_hand(model.points.detach().numpy(), x, y, order=2, **settings)
    np.testing.assert_allclose(x_adv.numpy(), expected, rtol=0, atol=1e-12)
    in_linf = [PGD(eps=0.1, direction=direction)(model, x, y, generator=seeded()) for direction in ("sign", "steepest")]
    assert torch.equal(*in_linf)


def test_the_l2_attack_of_zhang_and_zhu_reaches_its_ball():
    """Section A.2.1 on CIFAR-10: 20 steps of 2/255 along the unit gradient would go 0.157 of 0.4."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    x, y = 0.2 + 0.6 * torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 0, 1])
    settings = {"eps": 0.4, "steps": 20, "step_size": "2/255", "norm": "l2", "start": "zero"}
    signed, along = (
        (PGD(**settings, direction=direction)(model, x, y) - x).flatten(1).norm(dim=1)
        for direction in ("sign", "steepest")
    )
    torch.testing.assert_close(signed, torch.full((4,), 0.4))
    torch.testing.assert_close(along, torch.full((4,), 20 * 2 / 255))


def test_a_signed_step_in_another_ball_has_no_length_of_its_own():
    with pytest.raises(ValueError, match="direction='sign' moves every entry by step_size"):
        PGD(eps=0.4, norm="l2", direction="sign")
    with pytest.raises(ValueError, match="direction must be one of steepest, sign, got 'up'"):
        PGD(direction="up")


TARGETS = {"classes": 5}
AIMED = {"eps": 0.1, "step_size": 0.02, "steps": 12}


@pytest.mark.parametrize("early_stop", [False, True])
def test_each_restart_draws_a_target(early_stop):
    """A sample is broken if any of the runs breaks it, each with a target of its own, as an evaluation runs them."""
    model = Prototypes(**TARGETS)
    x = torch.rand(60, 3, 2, 2, generator=seeded(1), dtype=torch.float64)
    y = model(x).argmax(1)
    attack = PGD(**AIMED, label="random", restarts=4, early_stop=early_stop)
    x_adv = attack(model, x, y, generator=seeded())
    generator = seeded()
    runs = [stage(model, x, y, generator=generator) for stage in attack.stages()]  # the same draws, in the same order
    broken = torch.stack([model(run).argmax(1) != y for run in runs])
    assert torch.equal(model(x_adv).argmax(1) != y, broken.any(0))
    assert broken.any(0).sum() > broken[0].sum() + 5  # one target for all runs would break hardly more than the first
    if not early_stop:  # else a run of fewer samples starts where the others have left it
        assert all(any(torch.equal(x_adv[i], run[i]) for run in runs) for i in range(len(x)))


@pytest.mark.parametrize("early_stop", [False, True])
def test_all_targets_one_after_another(early_stop):
    model = Prototypes(**TARGETS)
    x = torch.rand(40, 3, 2, 2, generator=seeded(1), dtype=torch.float64)
    logits, points = model(x).detach(), model.points.detach().numpy()
    y = logits.argmax(1)
    order = torch.from_numpy(np.argsort(-logits.numpy(), 1, kind="stable")[:, 1:].copy())  # from the likeliest other on
    attack = PGD(**AIMED, start="zero", label="most_likely", restarts=4, early_stop=early_stop)
    broken = torch.zeros(4, len(x), dtype=torch.bool)
    for turn, stage in enumerate(attack.stages()):
        run = stage(model, x, y)
        if not early_stop:
            expected = _by_hand(points, x, order[:, turn], order=np.inf, **AIMED, sign=-1.0)
            np.testing.assert_allclose(run.numpy(), expected, rtol=0, atol=1e-12)
        broken[turn] = model(run).argmax(1) != y
    assert torch.equal(model(attack(model, x, y)).argmax(1) != y, broken.any(0))
    assert 0 < broken[0].sum() <= broken.any(0).sum() < len(x)
    # the nearest two of four, and a fifth that begins again
    two = PGD(**AIMED, start="zero", label="most_likely", restarts=2)(model, x, y)
    if not early_stop:
        assert torch.equal(model(two).argmax(1) != y, broken[:2].any(0))
        five = PGD(**AIMED, start="zero", label="most_likely", restarts=5).stages()
        assert torch.equal(five[4](model, x, y), five[0](model, x, y))


def test_restarts_prefer_success_over_loss():
    # A misclassified sample may have the smaller cross-entropy: 0.97 against 1.03 here.
    logits = {0: [0.0, 0.5, -40.0], 1: [0.0, -0.1, -0.1]}

    class Two(nn.Module):
        def forward(self, x):
            table = torch.tensor([logits[0], logits[1]])
            return table[(x.flatten(1)[:, 0] > 0.5).long()] + 0 * x.flatten(1).sum(1, keepdim=True)

    losses = [F.cross_entropy(torch.tensor([row]), torch.tensor([0])).item() for row in logits.values()]
    assert losses[0] < losses[1]
    x, y = torch.full((200, 1, 1, 1), 0.5), torch.zeros(200, dtype=torch.long)
    attack = PGD(eps=0.4, step_size=0, steps=1)
    assert 50 < (attack(Two(), x, y, generator=seeded()) > 0.5).sum() < 150
    x_adv = PGD(eps=0.4, step_size=0, steps=1, restarts=20)(Two(), x, y, generator=seeded())
    assert (x_adv <= 0.5).all()


@pytest.mark.slow
def test_clean_starts_are_drawn_for_whole_batches(batch):
    model, (x, y) = Prototypes(), batch
    attack = PGD(eps=0.2, steps=1, step_size=0, clean_start_probability=0.2)
    moved = torch.stack([(attack(model, x, y, generator=seeded(seed)) != x).flatten(1).any(1) for seed in range(400)])
    assert ((moved.sum(1) == 0) | (moved.sum(1) == len(x))).all()
    assert 50 < (~moved[:, 0]).sum() < 110  # 80 are expected, with a standard deviation of 8
    for probability, expected in ((0.0, True), (1.0, False)):
        attack = PGD(eps=0.2, steps=1, step_size=0, clean_start_probability=probability)
        assert (attack(model, x, y) != x).any().item() is expected


@pytest.mark.parametrize(("norm", "ball"), [("linf", Linf()), ("l2", L2()), ("l1", L1())])
def test_the_random_start_is_the_balls(batch, norm, ball):
    model, (x, y) = Prototypes(), batch
    x_adv = PGD(eps=0.2, steps=1, step_size=0, norm=norm)(model, x, y, generator=seeded())
    torch.testing.assert_close(x_adv, (x + ball.sample(x, 0.2, seeded())).clamp(0, 1))


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_input_diversity_happens_with_its_probability(batch, probability):
    model, (x, y) = Counting(nn.Sequential(nn.AdaptiveAvgPool2d(2), Prototypes())), batch
    x = F.interpolate(x, 10)
    PGD(eps=0.2, steps=300, step_size=0.01, diversity_probability=probability, diversity_scale=1.5)(
        model, x, y, generator=seeded()
    )
    assert set(model.sizes) <= {(10, 10), (15, 15)}
    share = model.sizes.count((15, 15)) / 300
    assert share == pytest.approx(probability, abs=4 * (probability * (1 - probability) / 300) ** 0.5)


def test_gd_leaves_the_ball_and_keeps_to_its_own(batch):
    model, (x, y) = Prototypes(), batch
    distance = (GD(eps=0.02, steps=5, step_size=0.01)(model, x, y, generator=seeded()) - x).abs().max()
    assert 0.04 < distance <= 0.02 + 5 * 0.01 + 1e-12
    projected = PGD(eps=0.02, steps=5, step_size=0.01)(model, x, y, generator=seeded())
    assert (projected - x).abs().max() <= 0.02 + 1e-12


def test_predicted_labels_do_not_leak(batch):
    model, (x, y) = Prototypes(), batch
    predicted = model(x).argmax(1)
    assert (predicted != y).any()
    attack = {label: PGD(eps=0.1, label=label, start="zero") for label in ("true", "predicted")}
    expected = attack["true"](model, x, predicted)
    assert torch.equal(attack["predicted"](model, x, y), expected)
    assert torch.equal(attack["predicted"](model, x, (y + 1) % 3), expected)
    assert not torch.equal(attack["true"](model, x, y), expected)


def test_double_precision_is_kept(batch):
    model, (x, y) = Prototypes(), batch
    x_adv = PGD(eps=1e-10, step_size=1e-11)(model, x, y)
    assert x_adv.dtype == torch.float64
    assert 1e-11 < (x_adv - x).abs().max() <= 1.0001e-10
    assert torch.equal(PGD(eps=0, step_size=0)(model, x, y), x)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_labels_of_any_integer_type(batch, dtype):
    model, (x, y) = Prototypes(), batch
    attack = PGD(eps=0.1, start="zero", loss="margin")
    assert torch.equal(attack(model, x, y.to(dtype)), attack(model, x, y))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_an_empty_batch(batch, norm):
    model, (x, y) = Prototypes(), batch
    assert PGD(norm=norm, restarts=2)(model, x[:0], y[:0]).shape == (0, 3, 2, 2)


def test_scaled(batch):
    model, (x, y) = Prototypes(), batch
    attack = MIFGSM(eps=0.2, steps=4)
    half = attack.scaled(0.5)
    assert type(half) is MIFGSM
    assert (half.eps, half.step_size, half.steps) == (0.1, 0.025, 4)
    assert (attack.eps, attack.step_size) == (0.2, 0.05)
    expected = PGD(eps=0.1, step_size=0.025, steps=4, momentum=1.0, start="zero")(model, x, y)
    assert torch.equal(half(model, x, y), expected)


def test_copies_scaled_for_each_step_draw_noise_of_their_own(batch):
    model, (x, y) = Prototypes(), batch
    attack = PGD(eps=0.2)
    first, second = (attack.scaled(0.5)(model, x, y) for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("eps", -0.1), ("eps", 1.1), ("eps", "8/0"), ("eps", None), ("step_size", -1), ("step_size", "nan"),
        ("steps", 0), ("steps", 2.5), ("steps", "7"), ("restarts", 0), ("restarts", 1.5), ("norm", "l3"),
        ("start", "random"), ("clean_start_probability", -0.1), ("clean_start_probability", 1.1),
        ("loss", "mse"), ("label", "wrong"), ("momentum", -1.0), ("momentum", float("nan")),
        ("diversity_probability", 2), ("diversity_scale", 0), ("diversity_scale", float("inf")), ("batchnorm", "train"),
    ],
)  # fmt: skip
def test_arguments_outside_their_range(argument, value):
    with pytest.raises(ValueError, match=argument):
        PGD(**{argument: value})


def test_the_start_of_trades_is_a_thousandth_of_a_normal():
    """Seen through an attack whose one step has no length to speak of."""
    x = torch.full((64, 3, 8, 8), 0.5, dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2, dtype=torch.float64))
    y = torch.zeros(64, dtype=torch.long)
    noise = PGD(eps=0.2, steps=1, step_size=1e-12, start="gaussian")(model, x, y, generator=seeded()) - x
    assert stats.kstest(noise.flatten() / 1e-3, "norm").pvalue > 0.01
    small = PGD(eps=1e-3, steps=1, step_size=1e-12, start="gaussian")(model, x, y, generator=seeded()) - x
    assert small.abs().max() <= 1e-3 + 1e-12
    assert (small.abs() > 0.999e-3).float().mean() == pytest.approx(0.317, abs=0.02)  # beyond one standard deviation


def test_kl_needs_a_random_start_and_no_label():
    with pytest.raises(ValueError, match="start='uniform' or 'gaussian'"):
        PGD(loss="kl", start="zero")
    with pytest.raises(ValueError, match="label='true'"):
        PGD(loss="kl", label="predicted")


def test_the_true_of_yaml_is_a_label():
    assert PGD(label=True).label == "true"
    with pytest.raises(ValueError, match="label"):
        PGD(label=False)


def _changed(x, value):
    x = x.clone()
    x[2, 1, 0, 1] = value
    return x


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (_changed(x, 1.01), y), "x must lie in"),
        (lambda x, y: (_changed(x, float("nan")), y), "x must lie in"),
        (lambda x, y: ((255 * x).byte(), y), "x must be floating-point"),
        (lambda x, y: (x[:, 0, 0, 0], y), "x must be floating-point"),
        (lambda x, y: (x, y[:-1]), "y must be integer labels"),
        (lambda x, y: (x, y.double()), "y must be integer labels"),
    ],
)
def test_bad_images_and_labels_are_named_before_the_model_runs(batch, change, message):
    model = Counting(Prototypes())
    with pytest.raises(ValueError, match=message):
        PGD()(model, *change(*batch))
    assert not model.sizes


@pytest.mark.parametrize("settings", [{}, {"label": "predicted"}, {"label": "random"}, {"loss": "kl"}])
@pytest.mark.parametrize("label", [3, -1])
def test_labels_outside_the_classes(batch, settings, label):
    model, (x, y) = Counting(Prototypes()), batch
    y = y.clone()
    y[4] = label
    with pytest.raises(ValueError, match=r"y must lie in \[0, 3\), got labels from"):
        PGD(**settings)(model, x, y)
    assert len(model.sizes) == 1
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("factor", [10, 100, 1000])
def test_confidence_does_not_hide_the_gradient(factor):
    """Logits times a constant decide the same, and cross-entropy's own gradient would underflow."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4))
    x, y = torch.rand(40, 1, 4, 4), torch.randint(4, (40,))
    confident = copy.deepcopy(network)
    confident[1].weight.data *= factor
    confident[1].bias.data *= factor
    attack = PGD(eps=0.1, steps=1, step_size=0.1, start="zero", loss="margin")
    expected = attack(network, x, y)
    x_adv = PGD(eps=0.1, steps=1, step_size=0.1, start="zero")(confident, x, y)
    assert ((x_adv != x) == (expected != x)).float().mean() > 0.999
    wrong = [(network(images).argmax(1) != y).float().mean().item() for images in (x_adv, expected)]
    assert wrong[0] >= wrong[1] - 0.05


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"momentum": 1.0}, {"diversity_probability": 0.5, "diversity_scale": 0.7}, {"start": "zero"},
        {"early_stop": True},
    ],
)  # fmt: skip
def test_iterates_are_the_attacks_of_so_many_steps(settings):
    """One path of 7 steps is seen at 1, 3 and 7; each is the whole attack with as many steps and the same noise."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.Tanh(), nn.Linear(8, 4))
    x, y = torch.rand(6, 3, 12, 12), torch.arange(6) % 4
    network(x)
    attack = PGD(eps=0.1, step_size=0.03, steps=99, restarts=3, **settings)
    found = attack.iterates(network, x, y, (1, 3, 7), generator=torch.Generator().manual_seed(5))
    for steps, x_adv in zip((1, 3, 7), found, strict=True):
        alone = PGD(eps=0.1, step_size=0.03, steps=steps, **settings)
        assert torch.equal(x_adv, alone(network, x, y, generator=torch.Generator().manual_seed(5)))
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("at", [(), (0, 3), (3, 3), (5, 2)])
def test_iterates_refuses_numbers_of_steps_that_do_not_increase(at):
    with pytest.raises(ValueError, match=r"at must be increasing numbers of steps, each at least 1, got \["):
        PGD().iterates(nn.Flatten(), torch.rand(1, 3, 1, 1), torch.tensor([0]), at)


@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr", "kl"])
def test_every_loss_can_be_named_in_yaml(batch, loss):
    model, (x, y) = Prototypes(), batch
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--attack", type=Attack)
    text = f"{{class_path: lightning_adv.attacks.PGD, init_args: {{loss: {loss}, early_stop: true}}}}"
    built = parser.instantiate(parser.parse_args([f"--attack={text}"])).attack
    assert (built.loss, built.early_stop) == (loss, True)
    again = PGD.from_config(built.to_config())
    assert torch.equal(again(model, x, y, generator=seeded()), built(model, x, y, generator=seeded()))


def test_stages_are_the_restarts():
    attack = PGD(eps=0.1, steps=4, restarts=3)
    stages = attack.stages()
    assert [stage.to_config() for stage in stages] == [PGD(eps=0.1, steps=4).to_config()] * 3
    assert attack.restarts == 3
