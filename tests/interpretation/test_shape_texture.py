"""Against loops over the images, with networks whose answers are known."""

import math

import pytest
import torch
from PIL import Image
from torch import nn

from lightning_adv.analysis.images.transforms import saturate
from lightning_adv.attacks import FGSM
from lightning_adv.core.errors import UsageError
from lightning_adv.core.shares import wilson_interval
from lightning_adv.interpretation.interpreting import interpret
from lightning_adv.interpretation.sections.shape_texture import ShapeTexture
from tests.seeded import seeded

SIZE = 8


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


@pytest.fixture(scope="module")
def images():
    return torch.rand(30, 3, SIZE, SIZE, generator=seeded()), torch.randint(3, (30,), generator=seeded(1))


def found(images, section, networks=None, attacks=None, **options):
    networks = {"a": network(0), "b": network(1)} if networks is None else networks
    results = interpret(networks, *images, {} if attacks is None else attacks, [section], batch_size=8, **options)
    return networks, results["shape_texture"]


def rows(result):
    return {(row.network, row.images, row.statistic): row for row in result.findings}


def test_accuracies_and_probabilities_are_those_of_a_loop(images):
    x, y = images
    attack = FGSM(eps=0.1)
    section = ShapeTexture({"saturation": [8, 0.5], "patch_shuffle": [2]}, pictures=2)
    networks, result = found(images, section, attacks={"fgsm": attack})
    table = rows(result)
    for name, each in networks.items():
        before = each(x).argmax(1) == y
        adversarial = each(attack(each, x, y)).argmax(1) == y
        assert table[name, "fgsm", "accuracy"].value == int(adversarial.sum()) / 30
        assert (name, "fgsm", "accuracy_on_correct") not in table
        assert table[name, "clean", "accuracy"].value == int(before.sum()) / 30
        for level in (8, 0.5):
            probabilities = each(saturate(x, level)).softmax(1)
            after = probabilities.argmax(1) == y
            top_1, on_correct, probability = (
                table[name, f"saturation {level:g}", statistic]
                for statistic in ("accuracy", "accuracy_on_correct", "true_class_probability")
            )
            assert (top_1.value, top_1.count) == (int(after.sum()) / 30, 30)
            assert (on_correct.value, on_correct.count) == (
                int((after & before).sum()) / int(before.sum()),
                int(before.sum()),
            )
            assert (on_correct.low, on_correct.high) == wilson_interval(int((after & before).sum()), int(before.sum()))
            of_truth = probabilities[range(30), y].double()
            assert probability.value == pytest.approx(of_truth.mean().item(), abs=1e-6)
            half = 1.96 * of_truth.std().item() / math.sqrt(30)
            assert probability.high - probability.value == pytest.approx(half, rel=1e-3)
    assert set(result.figures) == {"accuracy", "accuracy_on_correct", "saturation", "patch_shuffle"}


def test_networks_see_the_same_draws_and_sections_do_not_change_them(images):
    """A network under two names answers once; other transforms change nothing; the picture is of what was shown."""
    both = {"a": network(0), "again": network(0)}
    _, result = found(images, ShapeTexture({"random_filter": [0.4], "patch_shuffle": [4]}, pictures=2), both)
    table = rows(result)
    for row in result.findings:
        assert row[1:] == table["again", row.images, row.statistic][1:]
    _, alone = found(images, ShapeTexture({"patch_shuffle": [4.0]}, pictures=2), both)
    assert [row for row in result.findings if row.images in ("clean", "patch_shuffle 4")] == alone.findings
    figure = result.figures["patch_shuffle"]
    shown = torch.stack([torch.tensor(figure.axes[k].images[0].get_array()).permute(2, 0, 1) for k in (1, 3)])
    probabilities = both["a"](shown).softmax(1)
    assert [figure.axes[k].get_xlabel().split("\n")[0] for k in (1, 3)] == [
        f"a: {100 * row[label]:.1f} %" for row, label in zip(probabilities.tolist(), images[1].tolist(), strict=False)
    ]
    assert torch.equal(shown.flatten(2).sort().values, images[0][:2].flatten(2).sort().values)
    assert not torch.equal(shown, images[0][:2])


@pytest.mark.slow
def test_the_papers_levels_that_fit(images):
    x = images[0][..., :6].repeat(1, 1, 1, 2)[..., :12]  # 8 × 12: not 8 patches
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 12, 3))
    _, result = found((x, images[1]), ShapeTexture(), {"linear": linear})
    levels = {row.images for row in result.findings}
    assert {"patch_shuffle 2", "patch_shuffle 4", "saturation 1024", "low_pass 0.5", "random_filter 0.1"} < levels
    assert "patch_shuffle 8" not in levels
    assert {"filters", "saturation"} < set(result.figures)


def test_a_network_that_is_always_wrong_has_no_accuracy_on_correct(images):
    class Wrong(nn.Module):
        def forward(self, x):
            return torch.tensor([0.0, 0.0, 1.0]).expand(len(x), 3)

    _, result = found(
        (images[0], torch.zeros(30, dtype=torch.int64)), ShapeTexture({"saturation": [4]}), {"w": Wrong()}
    )
    assert {row.statistic for row in result.findings} == {"accuracy", "true_class_probability"}
    assert set(result.figures) == {"accuracy", "saturation"}


def write(folder, files, x):
    for file, image in zip(files, x, strict=True):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(folder / file)


def test_versions_in_folders_are_found_by_name(images, tmp_path):
    x, y = images
    x = (x * 255).round() / 255
    files = [f"test/{label}/{k}.png" for k, label in enumerate(y.tolist())]
    write(tmp_path, files[::-1], (1 - x).flip(0))
    networks, result = found((x, y), ShapeTexture({}, {"inverted": str(tmp_path)}, pictures=3), files=files)
    table = rows(result)
    for name, each in networks.items():
        after = each(1 - x).argmax(1) == y
        before = each(x).argmax(1) == y
        assert table[name, "inverted", "accuracy"].value == int(after.sum()) / 30
        on_correct = int((after & before).sum()) / int(before.sum())
        assert table[name, "inverted", "accuracy_on_correct"].value == on_correct
    assert set(result.figures) == {"versions"}


@pytest.mark.parametrize(
    ("make", "options", "told"),
    [
        (lambda here: ShapeTexture({"saturaton": [4]}), {}, "transforms has 'saturaton'; .* Did you mean .*saturation"),
        (lambda here: ShapeTexture({"patch_shuffle": [3]}), {}, "k must divide the height and the width"),
        (lambda here: ShapeTexture({}), {}, "transforms and versions must have something in them"),
        (lambda here: ShapeTexture(pictures=0), {}, "pictures must be at least 1, got 0"),
        (lambda here: ShapeTexture({}, {"clean": str(here)}), {}, "versions has 'clean', which is what other images"),
        (lambda here: ShapeTexture({}, {"s": str(here)}), {}, "these images have none"),
        (
            lambda here: ShapeTexture({}, {"s": str(here)}),
            {"files": ["x/0.png", *(f"x/{k}.jpg" for k in range(29))]},
            "versions.s: .* must hold a version of each image .*, but lacks x/0.jpg and 28 more of 30",
        ),
        (
            lambda here: ShapeTexture({}, {"s": str(here)}),
            {"files": ["x/0.png"] * 30},
            r"versions.s holds .*0.png, an image of shape \(3, 8, 9\), but the images .* are of shape \(3, 8, 8\)",
        ),
    ],
)
def test_bad_input_is_told(images, tmp_path, make, options, told):
    write(tmp_path, ["x/0.png"], torch.zeros(1, 3, 8, 9))
    with pytest.raises(UsageError, match=told):
        found(images, make(tmp_path), **options)
