"""With networks whose answers to a transformed image are known."""

import pytest
import torch
from torch import nn

from lightning_adv.analysis.images.transformed_accuracy import (
    PAPER_LEVELS,
    TransformedAccuracy,
    accuracy_on_correctly_classified,
    answers_to,
    answers_to_transformed,
    correctly_classified,
)
from lightning_adv.analysis.images.transforms import patch_shuffle, saturate
from lightning_adv.core.shares import wilson_interval
from lightning_adv.nn.batchnorm import InDomain, convert_batchnorm
from lightning_adv.testing.untouched import Snapshot
from tests.seeded import seeded


class Brighter(nn.Module):
    """Answers 1 where the mean of the first pixel's channels is above a threshold."""

    def __init__(self, threshold=0.5):
        super().__init__()
        self.threshold = threshold
        self.seen = 0

    def forward(self, x):
        self.seen = max(self.seen, len(x))
        score = x[:, :, 0, 0].mean(1) - self.threshold
        return torch.stack([-score, score], 1)


def numbers(rows):
    return {(row.transform, row.level): (row.correct, row.total) for row in rows}


def test_only_images_that_were_classified_correctly_count():
    """Saturation moves 0.6 (p = 4: 0.72, p = 1: 0.52) over or under a threshold of 0.55, and 0.9 never."""
    x = torch.tensor([0.6, 0.6, 0.9, 0.52, 0.1]).view(5, 1, 1, 1).expand(5, 1, 2, 2)
    y = torch.tensor([1, 0, 1, 1, 0])  # the second and the fourth are wrong to begin with
    rows = accuracy_on_correctly_classified(Brighter(0.55), x, y, {"saturation": [4, 1]}, generator=seeded())
    assert numbers(rows) == {("saturation", 4): (3, 3), ("saturation", 1): (2, 3)}
    assert {row.images for row in rows} == {"correct"}
    assert [round(row.accuracy, 3) for row in rows] == [1, 0.667]
    assert rows[1].interval == wilson_interval(2, 3)


def test_the_papers_levels_against_a_loop_over_images():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).double()
    x, y = torch.rand(60, 3, 8, 8, dtype=torch.float64), torch.randint(5, (60,))
    rows = accuracy_on_correctly_classified(network, x, y, generator=seeded(3), batch_size=7)
    assert [(row.transform, row.level) for row in rows] == [
        (name, level) for name, levels in PAPER_LEVELS.items() for level in levels
    ]
    found, generator = numbers(rows), seeded(3)
    before = [int(network(image[None]).argmax()) == label for image, label in zip(x, y, strict=True)]
    assert 0 < sum(before) < 60
    for name, change in (("saturation", lambda image, p: saturate(image, p)),
                         ("patch_shuffle", lambda image, k: patch_shuffle(image, k, generator))):  # fmt: skip
        for level in PAPER_LEVELS[name]:
            after = [int(network(change(image[None], level)).argmax()) for image in x]
            correct = sum(ok and answer == label for ok, answer, label in zip(before, after, y.tolist(), strict=True))
            assert found[name, level] == (correct, sum(before))


@pytest.mark.slow
def test_batches_change_no_result_and_stay_small():
    x, y = torch.rand(50, 3, 8, 8, generator=seeded()), torch.ones(50, dtype=torch.int64)
    tables = []
    for batch_size in (1, 16, 50):
        network = Brighter()
        tables.append(accuracy_on_correctly_classified(network, x, y, generator=seeded(), batch_size=batch_size))
        assert network.seen <= batch_size
    assert tables[0] == tables[1] == tables[2]


def test_another_network_sees_the_same_patches():
    """Where all is as it was and where one image is not looked at, the others have the same orders."""
    x, y = torch.rand(50, 1, 4, 4, generator=seeded()), torch.ones(50, dtype=torch.int64)
    shuffled = patch_shuffle(x, 4, seeded(1))
    for threshold in (0.2, 0.6):
        (row,) = accuracy_on_correctly_classified(
            Brighter(threshold), x, y, {"patch_shuffle": [4]}, generator=seeded(1)
        )
        right, after = x[:, 0, 0, 0] > threshold, shuffled[:, 0, 0, 0] > threshold
        assert (row.correct, row.total) == (int((right & after).sum()), int(right.sum()))


def test_in_eval_mode_through_a_domain_and_left_as_it_was():
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(2), nn.Dropout(0.9))
    convert_batchnorm(network)
    for norm in network[1].norms.values():
        norm.running_mean.fill_(0.5)
    network[1].norms["adversarial"].weight.data.neg_()  # answers the other class
    before = Snapshot(network.train())
    x, y = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).view(2, 2, 1, 1), torch.tensor([0, 0])
    assert correctly_classified(network, x, y).tolist() == [True, False]
    assert correctly_classified(InDomain(network, "adversarial"), x, y).tolist() == [False, True]
    (row,) = accuracy_on_correctly_classified(
        InDomain(network, "adversarial"), x, y, {"saturation": [8]}, generator=seeded()
    )
    assert row == TransformedAccuracy("saturation", 8, "correct", 1, 1)
    assert before.difference() is None


@pytest.mark.parametrize(
    ("transforms", "told"),
    [
        ({"saturate": [2]}, "there are saturation, .* Did you mean 'saturation'?"),
        ({"patch_shuffle": [2, 3]}, "k must divide .* got 3"),
        ({"patch_shuffle": [2.5]}, "number of patches along a side, got 2.5"),
        ({"low_pass": [0.5], "high_pass": [2]}, "radius must lie in .* got 2"),
        ({"random_filter": [-1]}, "probability must lie in .* got -1"),
    ],
)
def test_bad_levels_are_told_before_the_network_runs(transforms, told):
    network = Brighter()
    with pytest.raises(ValueError, match=told):
        accuracy_on_correctly_classified(
            network, torch.ones(2, 3, 8, 8), torch.ones(2, dtype=torch.int64), transforms, generator=seeded()
        )
    assert network.seen == 0


def test_bad_images_and_labels_are_told():
    x, y = torch.ones(2, 3, 8, 8), torch.ones(2, dtype=torch.int64)
    for images, labels, told in [
        (2 * x, y, r"x must lie in \[0, 1\]"),
        (x, y[:1], r"shape \(2,\)"),
        (x, y + 1, r"y must lie in \[0, 2\)"),
        (x, y - 1, "none of the 2 images x correctly"),
    ]:
        with pytest.raises(ValueError, match=told):
            accuracy_on_correctly_classified(Brighter(), images, labels, generator=seeded())


def test_several_networks_see_the_same_draws():
    """And each answers as it does alone; the probability of the true class against a loop."""
    torch.manual_seed(0)
    networks = {
        str(k): nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).double() for k in range(2)
    }
    x, y = torch.rand(20, 3, 8, 8, dtype=torch.float64), torch.randint(5, (20,))
    transforms = {"patch_shuffle": [2, 4], "random_filter_each": [0.3]}
    shown = list(answers_to_transformed(networks, x, y, transforms, generator=seeded(3), batch_size=6))
    assert [(row.transform, row.level) for row in shown] == [
        ("patch_shuffle", 2), ("patch_shuffle", 4), ("random_filter_each", 0.3),
    ]  # fmt: skip
    for name, network in networks.items():
        before = correctly_classified(network, x, y)
        alone = accuracy_on_correctly_classified(network, x, y, transforms, generator=seeded(3))
        assert [row.correct for row in alone] == [int((row.networks[name].correct & before).sum()) for row in shown]
        shuffled = patch_shuffle(x, 2, seeded(3))
        probabilities = [
            network(each[None]).softmax(1)[0, label].item() for each, label in zip(shuffled, y, strict=True)
        ]
        assert shown[0].networks[name].probability.tolist() == pytest.approx(probabilities, abs=1e-6)
    assert answers_to(networks["0"], x, y).correct.tolist() == correctly_classified(networks["0"], x, y).tolist()
