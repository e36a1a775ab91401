"""FrequencyCurve and PerturbationView in real runs: their numbers by loops over the network of the checkpoint."""

import pytest
import torch

from lightning_adv.callbacks import FrequencyCurve, PerturbationView
from lightning_adv.core.table import read_table
from lightning_adv.nn.batchnorm import export_plain
from lightning_adv.regimes import AdvPropTraining
from tests.callbacks.responses import STRONG, WideData, fit, load
from tests.regimes.every_regime import make


def keeping(kind):
    """An observer that keeps its images."""

    class Keeping(kind):
        analysis = "it"

        def prepare(self, trainer, module):
            super().prepare(trainer, module)
            self.kept = list(self._images.batches)

    return Keeping


def train(folder, observer):
    """Return the table, as {(domain, statistic): value}, the networks by domain, the images and their examples."""
    trainer, run = fit(folder, observer, make("advprop", folder / "weights"), data=WideData())
    module = load(run, AdvPropTraining)
    networks = {domain: export_plain(module.network, domain).eval() for domain in module.domains}
    examples = {}
    for domain, network in networks.items():
        made = [
            STRONG(network, *batch.to(torch.device("cpu"))[:2], generator=batch.to(torch.device("cpu"))[2])
            for batch in observer.kept
        ]
        examples[domain] = torch.cat(made)
    x, y = (torch.cat([getattr(batch, part) for batch in observer.kept]) for part in "xy")
    rows = read_table(run / "analyses/it.csv")
    logged = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("it/")}
    return {row[3:5]: row.value for row in rows}, networks, (x, y, examples), logged, run / "figures"


def accuracy(network, x, y):
    with torch.no_grad():
        return (network(x).argmax(1) == y).double().mean().item()


@pytest.mark.slow
def test_the_frequency_curve_ends_at_the_accuracies_and_begins_with_plain_images(tmp_path):
    observer = keeping(FrequencyCurve)(
        images=100, radii=[2**0.5, 0, 0.7], attack=STRONG, filters=["low_pass", "high_pass"]
    )
    table, networks, (x, y, examples), logged, figures = train(tmp_path, observer)
    assert table["", "images"] == 100
    for domain, network in networks.items():
        for kind, images in (("clean", x), ("adversarial", examples[domain])):
            grey = images.mean((2, 3), keepdim=True).expand_as(images)
            assert table[domain, f"low_pass_{kind}[0]"] == pytest.approx(accuracy(network, grey, y), abs=0.021)
            assert table[domain, f"low_pass_{kind}[1.414]"] == table[domain, f"low_pass_{kind}_end"]
            whole = accuracy(network, images, y)  # by one batch, which rounds otherwise
            assert table[domain, f"low_pass_{kind}_end"] == pytest.approx(whole, abs=0.021)
            everything = [table[domain, f"low_pass_{kind}[{radius}]"] for radius in ("0", "0.7", "1.414")]
            assert table[domain, f"low_pass_{kind}_peak"] == max(everything)
            assert (0, 0.7, 2**0.5)[everything.index(max(everything))] == pytest.approx(
                table[domain, f"low_pass_{kind}_peak_radius"]
            )
            without_mean = (images - grey).clamp(0, 1)
            assert table[domain, f"high_pass_{kind}[0]"] == pytest.approx(accuracy(network, without_mean, y), abs=0.021)
    assert set(logged) == {
        f"it/{name}_adversarial_{of}" for name in ("low_pass", "high_pass") for of in ("peak", "peak_radius", "end")
    }
    assert logged["it/low_pass_adversarial_end"] == pytest.approx(table["main", "low_pass_adversarial_end"])
    assert {path.name for path in figures.iterdir()} == {"it_curves.png", "it_looks.png"}


@pytest.mark.slow
def test_what_became_of_the_attacks(tmp_path):
    """In the table, and beside the pictures of the first images."""

    class Drawn(keeping(PerturbationView)):
        analysis = "it"

        def draw(self, rows):
            figures = dict(super().draw(rows))
            self.texts = [axes.get_xlabel() for axes in figures["examples"].axes]
            return figures

    observer = Drawn(images=100, shown=3, attack=STRONG)
    table, networks, (x, y, examples), logged, figures = train(tmp_path, observer)
    for domain, network in networks.items():
        with torch.no_grad():
            before, after = (network(images).argmax(1) == y for images in (x, examples[domain]))
        change = (examples[domain] - x).abs().double()
        successful, failed = (before & ~after).sum().item(), (before & after).sum().item()
        assert (table[domain, "images_successful"], table[domain, "images_failed"]) == (successful, failed)
        assert table[domain, "success_rate"] == pytest.approx(successful / (successful + failed))
        assert table[domain, "largest_change"] == pytest.approx(change.max().item(), rel=1e-5)
        assert table[domain, "mean_change"] == pytest.approx(change.mean().item(), rel=1e-5)
        for label, right, kept in zip(y[:3].tolist(), before.tolist(), after.tolist(), strict=False):
            told = "wrong before" if not right else "withstood" if kept else "turned"
            assert f"class {label}: {told}" in observer.texts
    assert logged == {f"it/{of}": pytest.approx(table["main", of]) for of in ("success_rate", "mean_change")}
    assert [path.name for path in figures.iterdir()] == ["it_examples.png"]
    assert observer._examples == {}, "let go of"


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (
            FrequencyCurve,
            {"filters": ["lowpass"]},
            r"frequency_curve\.filters must be at least one of low_pass, .*low_pass",
        ),
        (FrequencyCurve, {"filters": []}, r"frequency_curve\.filters must be at least one of"),
        (FrequencyCurve, {"radii": [0.5, 2.0]}, r"frequency_curve\.radii must be at least one number from 0 to √2"),
        (FrequencyCurve, {"radii": []}, r"frequency_curve\.radii must be at least one number"),
        (FrequencyCurve, {"images": 0}, r"frequency_curve\.images must be an integer of at least 1"),
        (
            PerturbationView,
            {"shown": 9, "images": 8},
            r"perturbation_view\.shown is 9, and perturbation_view\.images only 8",
        ),
    ],
)
def test_arguments_out_of_range(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)
