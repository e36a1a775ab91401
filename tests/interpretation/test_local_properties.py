"""The tables and figures of "Dissecting Local Properties" as a section."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_adv.analysis import LocalResponses, compare_responses, plot_kernel_arithmetic, response_layers
from lightning_adv.analysis.images import accuracy_over_frequency, log_amplitude_spectrum
from lightning_adv.attacks import FGSM, PGD
from lightning_adv.core.errors import UsageError
from lightning_adv.interpretation import LocalProperties, interpret

ATTACKS = {"pgd": PGD(eps=0.3, steps=3, step_size=0.1), "fgsm": FGSM(eps=0.02)}


def small(seed: int, channels: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    ).eval()


@pytest.fixture(scope="module")
def looked():
    networks = {"a": small(0), "b": small(1)}
    x = torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():  # each network is right about some, close to its boundaries and far from them
        for network in networks.values():
            network[-1].bias -= network(x).mean(0)
        y = torch.where(torch.arange(30) % 2 == 0, networks["a"](x).argmax(1), networks["b"](x).argmax(1))
    section = LocalProperties(radii=[0.0, 0.7, 1.4], spectrum_images=10, examples=2)
    result = interpret(networks, x, y, ATTACKS, [section], batch_size=8)["local_properties"]
    return networks, x, y, result


def crafted(network, x, y, name):
    """The examples by the attack itself: FGSM draws nothing, whatever the batches."""
    return ATTACKS[name](network, x, y)


def values(findings, **key):
    return {row.layer: row for row in findings if all(getattr(row, name) == value for name, value in key.items())}


@pytest.mark.parametrize("source", ["a", "b"])
def test_tables_are_those_of_the_observers_metric(looked, source):
    networks, x, y, (findings, _) = looked
    layers = response_layers(networks["b"], (3, 8, 8))
    x_adv = crafted(networks[source], x, y, "fgsm")
    metric = LocalResponses(layers)
    seen = compare_responses(networks["b"], x, x_adv, layers)
    metric.update(seen, y)
    expected = metric.compute()
    images = "fgsm" if source == "b" else "fgsm of a"
    groups = 0
    for layer in layers:
        for statistic, value in expected[layer].items():
            row = values(findings, network="b", images=images, statistic=statistic)[layer]
            assert row.value == pytest.approx(value, rel=1e-5)
            suffix = statistic.removeprefix("max").removeprefix("total")
            assert row.count == expected[""][f"images{suffix}"]
            groups += 1
        assert len(values(findings, network="b", images=images)) > 1
    assert groups >= 2 * len(layers)
    accuracy = values(findings, network="b", images=images, statistic="accuracy")[""]
    assert accuracy.value == pytest.approx(float((seen.adversarial.argmax(1) == y).double().mean()))
    assert accuracy.low < accuracy.value < accuracy.high
    largest = seen.maximum["conv1"].double()
    row = values(findings, network="b", images=images, statistic="max")["conv1"]
    assert row.high - row.value == pytest.approx(1.96 * float(largest.std()) / math.sqrt(30), rel=1e-3)


def test_some_attacks_succeed_and_some_fail(looked):
    """What the test above compares has both groups."""
    findings = looked[3].findings
    assert {row.statistic for row in findings if row.images == "fgsm"} >= {"max_successful", "max_failed"}


def test_filtered_accuracies_are_those_of_all_images_at_once(looked):
    networks, x, y, (findings, _) = looked
    section = LocalProperties(radii=[0.0, 0.7, 1.4], frequency_attack="fgsm")
    found = interpret({"a": networks["a"]}, x, y, ATTACKS, [section], batch_size=7)["local_properties"].findings
    rows = accuracy_over_frequency(networks["a"], x, crafted(networks["a"], x, y, "fgsm"), y, [0.0, 0.7, 1.4])
    shown = {"low_pass": "low_pass", "high_pass": "high_pass"}
    for row in rows:
        own, other = ("clean", "fgsm") if row.images == "clean" else ("fgsm", "clean")
        images = f"{own} {shown.get(row.transform, f'merged {other}')} {row.level:g}"
        assert values(found, images=images)[""].value == row.accuracy
    first = {row.images.partition(" ")[0] for row in findings if "_pass" in row.images}
    assert first == {"clean", "pgd"}  # the first attack, where none is named


def test_amplitudes_are_above_those_of_as_many_images(looked):
    networks, x, y, (findings, _) = looked
    gap = log_amplitude_spectrum(crafted(networks["a"], x, y, "fgsm")[:10]) - log_amplitude_spectrum(x[:10])
    scale = (torch.arange(8) - 4) / 4
    low = torch.stack([scale[None] ** 2 + scale[:, None] ** 2]).sum(0) <= 0.49
    for name, modes in (("low", low), ("high", ~low)):
        row = values(findings, network="a", images="fgsm", statistic=f"log_amplitude_{name}")[""]
        assert (row.value, row.count) == (pytest.approx(float(gap[modes].mean())), 10)


def test_pictures_show_attacks_that_succeeded_and_failed(looked):
    networks, x, y, (_, figures) = looked
    assert {name.rpartition("_")[0] for name in figures} >= {"spectra", "responses", "perturbations_fgsm"}
    for outcome in ("successful", "failed"):
        captions = [axes.get_xlabel() for axes in figures[f"perturbations_fgsm_{outcome}"].axes]
        captions = [caption for caption in captions if caption]
        assert len(captions) == 2 * 2  # two images of two networks
    correct = {name: network(x).argmax(1) == y for name, network in networks.items()}
    turned = {name: network(crafted(network, x, y, "fgsm")).argmax(1) != y for name, network in networks.items()}
    score = sum((correct[name] & turned[name]).int() for name in networks)
    best = int(score.argmax())  # the first image on which most attacks succeed is the first row
    panel = figures["perturbations_fgsm_successful"].axes[0].images[0].get_array()
    assert torch.allclose(torch.tensor(panel), x[best].permute(1, 2, 0))


def test_images_of_other_channels_have_no_pictures_of_perturbations():
    network, x = small(0, channels=2), torch.rand(4, 2, 8, 8)
    result = interpret(
        {"a": network}, x, torch.zeros(4, dtype=torch.long), {"fgsm": FGSM()}, [LocalProperties(radii=[1.0])]
    )
    assert not any("perturbations" in name for name in result["local_properties"].figures)


def test_the_arithmetic_of_figure_4():
    kernel = torch.tensor([[[[-1.0] * 3, [-1, 9, -1], [-1] * 3]]])
    disordered = torch.tensor([[[[-1.0, 8, 0], [-8, 8, -2], [-4, 4, -4]]]])
    assert float(nn.functional.conv2d(disordered, kernel).abs()) == 79
    shown = [text.get_text() for axes in plot_kernel_arithmetic().axes for text in axes.texts]
    assert [text for text in shown if "/255" in text] == ["79/255", "0.11/255", "8/255", "8/255"]
    with pytest.raises(UsageError, match="must be of one size"):
        plot_kernel_arithmetic({"flat": [[1, 2]]})


class OneStage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(192, 3)

    def forward(self, x):
        return self.head(x.flatten(1))


@pytest.mark.parametrize(
    ("section", "network", "told"),
    [
        (LocalProperties(), OneStage(), "local_properties: a: network OneStage is of a single block: name the layers"),
        (LocalProperties(layers="layer9"), small(0), "local_properties: a: layers has the pattern 'layer9', which no"),
    ],
)
def test_layers_that_are_not_there_are_told(section, network, told):
    x, y = torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.long)
    with pytest.raises(UsageError, match=told):
        interpret({"a": network}, x, y, {"fgsm": FGSM()}, [section])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [({"examples": 0}, "examples must be at least 1"), ({"spectrum_images": 0}, "spectrum_images must be at least 1"),
     ({"radii": []}, "radii must be at least one")],
)  # fmt: skip
def test_arguments_that_are_not_allowed(arguments, told):
    with pytest.raises(UsageError, match=told):
        LocalProperties(**arguments)


def test_a_network_of_one_block_can_be_looked_at_by_name():
    x, y = torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 2])
    found = interpret({"a": OneStage()}, x, y, {"fgsm": FGSM()}, [LocalProperties(layers="head", radii=[1.0])])
    assert {row.layer for row in found["local_properties"].findings} == {"", "head"}
