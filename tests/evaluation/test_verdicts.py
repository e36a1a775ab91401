import json
from dataclasses import asdict

import pytest
import torch
from torch import nn

from lightning_adv.attacks import FGSM, PGD
from lightning_adv.core.seeds import derive_seed
from lightning_adv.evaluation import ChunkVerdicts, StepsCurve, evaluate, evaluate_chunk, make_plan, summarise
from lightning_adv.evaluation.verdicts import predict
from lightning_adv.nn.batchnorm import InDomain, convert_batchnorm, domain
from lightning_adv.testing.untouched import Snapshot
from tests.evaluation.scripted import Breaks, FirstPixel, images

EPS = {"linf": [0.1, 0.2]}


@pytest.fixture(autouse=True)
def _forget():
    Breaks.seen.clear()


def run(attacks, *, exhaustive, x=None, y=None, eps=EPS):
    if x is None:
        x, y = images()
    plan = make_plan(attacks, eps, exhaustive=exhaustive)
    chunk = evaluate_chunk(FirstPixel(), x, y, plan)
    return plan, chunk, summarise(plan, [chunk])


def test_a_broken_sample_is_attacked_neither_by_the_next_attack_nor_at_a_larger_radius():
    _, chunk, summary = run([Breaks([1, 2], steps=3), Breaks([2, 5], steps=4)], exhaustive=False)
    assert Breaks.seen == [
        (0.1, 3, [0, 1, 2, 3, 4, 5, 6, 7]),
        (0.1, 4, [0, 3, 4, 5, 6, 7]),
        (0.2, 3, [0, 3, 4, 6, 7]),
        (0.2, 4, [0, 3, 4, 6, 7]),
    ]
    assert chunk.cases["Linf 0.1: Breaks-4"].verdicts == [
        "survived", "skipped", "skipped", "survived", "survived", "broken", "survived", "survived",
    ]  # fmt: skip
    assert [(found.attacked, found.broken, found.left.correct) for found in summary.cases] == [
        (8, 2, 6), (6, 1, 5), (5, 0, 5), (5, 0, 5),
    ]  # fmt: skip
    assert [None if found.alone is None else found.alone.correct for found in summary.cases] == [6, None, None, None]
    assert [found.correct for found in summary.all_or_nothing.values()] == [5, 5]


def test_exhaustive_attacks_see_every_sample_and_come_to_the_same_all_or_nothing():
    plan, _, summary = run([Breaks([1, 2], steps=3), Breaks([2, 5], steps=4)], exhaustive=True)
    assert [codes for *_, codes in Breaks.seen] == [list(range(8))] * 4
    assert [found.alone.correct for found in summary.cases] == [6, 6, 6, 6]
    assert [found.left.correct for found in summary.cases] == [6, 5, 5, 5]
    assert [found.correct for found in summary.all_or_nothing.values()] == [5, 5]
    assert plan.exhaustive


def test_a_misclassified_sample_is_attacked_by_nobody_and_counts_as_wrong():
    x, y = images()
    y[3] = 0  # its pixel says class 1
    _, chunk, summary = run([Breaks([1, 3])], exhaustive=True, x=x, y=y)
    assert Breaks.seen[0][2] == [0, 1, 2, 4, 5, 6, 7]
    assert chunk.cases["Linf 0.1: Breaks"].verdicts[3] == "misclassified"
    assert (summary.clean.correct, summary.cases[0].alone.correct) == (7, 6)
    assert summary.all_or_nothing[summary.cases[0].case.threat].correct == 6


def test_what_broke_a_sample_is_written_down():
    _, chunk, _ = run([Breaks([1, 2])], exhaustive=False)
    found = chunk.cases["Linf 0.1: Breaks"]
    assert found.predicted == [None, 0, 1, None, None, None, None, None]
    assert found.distance[1] == pytest.approx(0.1)
    assert found.distance[0] is None
    assert found.stage[:3] == [None, 0, 0]


def test_restarts_are_stages_that_see_only_what_is_left():
    """PGD with restarts gives the verdicts of its restarts, run on every sample and put together by hand."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 3))
    x = torch.rand(64, 3, 4, 4)
    y = predict(network, x)
    plan = make_plan([PGD(eps=1, steps=1, step_size=0.05, restarts=4)], {"linf": [0.06]})
    chunk = evaluate_chunk(network, x, y, plan)
    found = next(iter(chunk.cases.values()))
    stages = [stage for stage in found.stage if stage is not None]
    assert len(set(stages)) > 1  # later restarts broke some
    (case,) = summarise(plan, [chunk]).cases
    assert case.stages == tuple(stages.count(number) for number in range(4))
    assert sum(case.stages) == case.broken


class Nearest(nn.Module):
    """The nearest of five points is the class."""

    def __init__(self):
        super().__init__()
        self.points = nn.Parameter(torch.rand(5, 12))

    def forward(self, x):
        return -(x.flatten(1)[:, None] - self.points).square().sum(2)


@pytest.mark.parametrize("label", ["random", "most_likely"])
def test_an_evaluation_is_as_strong_as_a_call_of_restarts_at_targets(label):
    network, x = Nearest(), torch.rand(200, 3, 2, 2)
    y = predict(network, x)
    attack = PGD(eps=0.1, steps=12, step_size=0.02, label=label, restarts=8)  # twice the four other classes
    found = evaluate(network, x, y, [attack], {"linf": [0.1]}).cases[0]
    called = int((predict(network, attack(network, x, y, generator=torch.Generator().manual_seed(1))) != y).sum())
    assert found.broken == pytest.approx(called, abs=6)
    assert sum(count > 0 for count in found.stages) > 1
    if label == "random":
        one = attack.stages()[0](network, x, y, generator=torch.Generator().manual_seed(1))
        assert int((predict(network, one) != y).sum()) < called - 20


def test_early_stop_gives_the_verdicts_of_any_iterate():
    """Each iterate of the full loop, from the same starts, is judged by hand."""
    torch.manual_seed(2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    x = torch.rand(64, 3, 4, 4, dtype=torch.float64)
    y = predict(network, x)
    settings = {"eps": 1, "steps": 6, "step_size": 1.9}  # long steps, which leave again what they have reached
    plan = make_plan([PGD(**settings, early_stop=True), PGD(**settings)], {"linf": [0.15]}, exhaustive=True)
    assert [case.name for case in plan.cases] == ["PGD-6, any iterate", "PGD-6"]
    chunk = evaluate_chunk(network, x, y, plan, batch_size=24)
    generator = torch.Generator().manual_seed(derive_seed(0, 0, plan.cases[0].key, 0))
    broken = torch.zeros(64, dtype=torch.bool)
    for part in torch.arange(64).split(24):
        attack = PGD(eps=0.15, step_size=0.285)
        iterates = attack.iterates(network, x[part], y[part], range(1, 7), generator=generator)
        broken[part] = torch.stack([predict(network, images) != y[part] for images in iterates]).any(0)
    any_iterate, last = (chunk.cases[case.key].where("broken") for case in plan.cases)
    assert any_iterate.tolist() == broken.tolist()
    assert last.sum() < any_iterate.sum() < 64


def test_linear_network_against_its_closed_form():
    """FGSM breaks it exactly where the margin is below eps times the L1 norm of the difference of the weights."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).double()
    x = 0.4 + 0.2 * torch.rand(500, 3, 2, 2, dtype=torch.float64)  # no pixel meets 0 or 1
    y = torch.randint(2, (500,))
    logits = network(x)
    margin = (logits.gather(1, y[:, None]) - logits.gather(1, 1 - y[:, None])).flatten()
    length = (network[1].weight[0] - network[1].weight[1]).abs().sum()
    summary = evaluate(network, x, y, [FGSM(), PGD(steps=5)], {"linf": [0.01, 0.05, 0.2]}, batch_size=96)
    for threat, accuracy in summary.all_or_nothing.items():
        assert accuracy.correct == int((margin > threat.eps * length).sum())
    assert summary.clean.correct == int((margin > 0).sum())


def test_what_is_known_is_not_run_again_and_ends_the_same():
    attacks = [Breaks([1], steps=3), Breaks([2], steps=4), PGD(eps=1, steps=2, step_size=0.3)]
    plan = make_plan(attacks, EPS, steps_curve=StepsCurve(PGD(eps=1, step_size=0.3), steps=(1, 3), images=5))
    x, y = images()
    seen = []
    whole = evaluate_chunk(FirstPixel(), x, y, plan, after_case=lambda chunk, _: seen.append(json.dumps(asdict(chunk))))
    assert whole.curve_images == 5
    for number, text in enumerate(seen):
        Breaks.seen.clear()
        known = ChunkVerdicts.from_plain(json.loads(text))
        done = len(known.cases)
        resumed = evaluate_chunk(FirstPixel(), x, y, plan, known=known)
        for case in [*resumed.cases.values(), *whole.cases.values()]:
            case.seconds = 0
        assert resumed == whole, number
        assert len(Breaks.seen) == 4 - sum("Breaks" in key for key in list(whole.cases)[:done])


def test_what_is_known_of_other_samples_is_refused():
    x, y = images()
    plan = make_plan([Breaks([1])], EPS)
    known = evaluate_chunk(FirstPixel(), x, y, plan)
    for other in ({"y": 1 - y}, {"index": range(1, len(y) + 1)}):
        with pytest.raises(ValueError, match="known: what was written down of chunk 0 is of other samples"):
            evaluate_chunk(FirstPixel(), **({"x": x, "y": y, "plan": plan, "known": known} | other))


def test_chunks_add_up():
    x, y = images(10)
    plan = make_plan([Breaks([1, 7, 9])], {"linf": [0.1]}, steps_curve=StepsCurve(PGD(), steps=(1,), images=6))
    parts = [
        evaluate_chunk(FirstPixel(), x[first : first + 4], y[first : first + 4], plan, number=first // 4, first=first)
        for first in (0, 4, 8)
    ]
    summary = summarise(plan, parts)
    assert (summary.clean.total, summary.cases[0].alone.correct) == (10, 7)
    assert [part.curve_images for part in parts] == [4, 2, 0]
    assert summary.curves[0].accuracies[0].total == 6
    assert parts[2].index == [8, 9]


def test_the_curve_is_that_of_separate_attacks():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 3))
    x = torch.rand(200, 3, 4, 4)
    y = predict(network, x)
    curve = StepsCurve(PGD(eps=1, step_size=0.02, start="zero"), steps=(1, 5, 40), images=200)
    found = evaluate(network, x, y, [FGSM()], {"linf": [0.1]}, steps_curve=curve).curves[0]
    for steps, accuracy in zip(found.steps, found.accuracies, strict=True):
        x_adv = PGD(eps=0.1, step_size=0.002, steps=steps, start="zero")(network, x, y)
        assert accuracy.correct == int((network(x_adv).argmax(1) == y).sum())
    assert found.accuracies[0].correct > found.accuracies[2].correct


class Leaves(Breaks):
    """Goes twice as far as it may."""

    def __call__(self, model, x, y, *, domain=None, generator=None):
        return (x + 2 * self.eps).clamp(0, 1)


class LeavesTheCube(Breaks):
    def __call__(self, model, x, y, *, domain=None, generator=None):
        return x - self.eps


@pytest.mark.parametrize("attack", [Leaves(), LeavesTheCube()])
def test_an_attack_that_leaves_its_ball_or_the_cube_is_no_measurement(attack):
    with pytest.raises(RuntimeError, match=r"Leaves.* does not allow: Leaves.* is faulty"):
        run([attack], exhaustive=False)


def test_a_network_without_numbers():
    network = FirstPixel()
    nn.init.constant_(network.slope, float("nan"))
    x, y = images()
    with pytest.raises(ValueError, match="logits of clean images are not all numbers"):
        evaluate(network, x, y, [FGSM()], EPS)


def test_images_must_lie_in_the_cube():
    x, y = images()
    with pytest.raises(ValueError, match=r"x must lie in \[0, 1\]"):
        evaluate(FirstPixel(), 2 * x, y, [FGSM()], EPS)


def test_the_network_is_left_in_train_mode_and_global_randomness_alone():
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).train()
    before, state = Snapshot(network), torch.get_rng_state()
    x, y = images()
    evaluate(network, x, y, [PGD(steps=3, restarts=2)], EPS)
    assert torch.equal(torch.get_rng_state(), state)
    assert before.difference() is None


class Wobbling(Breaks):
    """Adds noise of its generator, and remembers it."""

    drawn: list = []  # noqa: RUF012

    def __call__(self, model, x, y, *, domain=None, generator=None):
        noise = torch.rand(x.shape, generator=generator)
        Wobbling.drawn.append(noise)
        return (x + 0.01 * noise).clamp(0, 1)


def test_chunks_draw_other_noise_and_the_same_when_run_again():
    Wobbling.drawn.clear()
    x, y = images(4)
    plan = make_plan([Wobbling()], {"linf": [0.1]})
    for number in (0, 1, 0):
        evaluate_chunk(FirstPixel(), x, y, plan, number=number)
    first, second, again = Wobbling.drawn
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_examples_are_judged_through_the_domain_that_is_attacked():
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    network = convert_batchnorm(network, ["main", "adversarial"])
    with domain(network, "adversarial"):
        for _ in range(50):
            network(0.2 * torch.rand(64, 1, 2, 2))  # running statistics of its own, far from the others
    x = torch.rand(200, 1, 2, 2)
    assert (predict(InDomain(network, "main"), x) != predict(InDomain(network, "adversarial"), x)).sum() > 20
    found = {}
    for through in ("main", "adversarial"):
        y = predict(InDomain(network, through), x)
        summary = evaluate(network, x, y, [FGSM()], {"linf": [0.02]}, domain=through)
        x_adv = FGSM(eps=0.02)(network, x, y, domain=through)
        found[through] = int((predict(InDomain(network, through), x_adv) == y).sum())
        assert summary.all_or_nothing.popitem()[1].correct == found[through]
        assert summary.clean.correct == 200


class Nan(FirstPixel):
    """Gives NaN where the first pixel is above a half by more than the images are."""

    def forward(self, x):
        logits = super().forward(x)
        return torch.where(x.flatten(1)[:, :1] > 0.56, torch.nan, logits)


def test_an_example_that_makes_the_network_give_nan_is_one_that_breaks_it():
    x, y = images(4)
    x[:, 0, 0, 0], y[:] = 0.55, 1
    plan = make_plan([Lifts()], {"linf": [0.1]})
    found = evaluate_chunk(Nan(), x, y, plan).cases["Linf 0.1: Lifts"]
    assert (found.verdicts, found.predicted) == (["broken"] * 4, [-1] * 4)


class Lifts(Breaks):
    def __call__(self, model, x, y, *, domain=None, generator=None):
        return (x + 0.02).clamp(0, 1)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_thousandth_beyond_the_ball_is_too_far(norm):
    class Barely(Breaks):
        def __call__(self, model, x, y, *, domain=None, generator=None):
            x_adv = x.clone()
            x_adv[:, 0, 0, 1] += 1.001 * self.eps
            return x_adv

    x, y = images()
    plan = make_plan([Barely(norm=norm)], {norm: [0.1]})
    with pytest.raises(RuntimeError, match="is faulty"):
        evaluate_chunk(FirstPixel(), x, y, plan)


def test_what_is_left_of_several_batches_is_attacked_in_full_ones():
    x, y = images(20)
    plan = make_plan([Breaks(range(12), steps=3), Breaks(steps=4)], {"linf": [0.1]})
    evaluate_chunk(FirstPixel(), x, y, plan, batch_size=5)
    first, second = ([codes for _, steps, codes in Breaks.seen if steps == number] for number in (3, 4))
    assert first == [list(range(start, start + 5)) for start in (0, 5, 10, 15)]
    assert second == [[12, 13, 14, 15, 16], [17, 18, 19]]


def test_batches_change_no_number_of_an_attack_that_draws_nothing():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 3))
    x = torch.rand(100, 3, 4, 4)
    y = predict(network, x, batch_size=7)
    assert torch.equal(y, predict(network, x))
    curve = StepsCurve(PGD(eps=1, step_size=0.1, start="zero"), steps=(1, 5), images=70)
    found = [
        evaluate(network, x, y, [FGSM()], {"linf": [0.05, 0.1]}, steps_curve=curve, batch_size=size)
        for size in (9, 100)
    ]
    assert found[0].all_or_nothing == found[1].all_or_nothing
    assert found[0].curves == found[1].curves
