"""With networks that go by one frequency, and against Fourier transforms of NumPy."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_adv.analysis.images.frequency import (
    FILTERS,
    FREQUENCY_SCALE,
    accuracy_over_frequency,
    log_amplitude_spectrum,
)
from lightning_adv.analysis.images.transformed_accuracy import TransformedAccuracy


def wave(u, v, amplitude, size=16):
    """A pair of modes at sqrt(u² + v²) / 8 on the frequency scale."""
    rows, columns = torch.arange(size)[:, None], torch.arange(size)
    return amplitude * torch.cos(2 * math.pi * (u * rows + v * columns) / size)


class Detector(nn.Module):
    """Answers 1 where the image correlates with the sum of some waves."""

    def __init__(self, *modes):
        super().__init__()
        self.template = sum(wave(u, v, 1.0) for u, v in modes)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        score = (x * self.template).sum((1, 2, 3))
        return torch.stack([-score, score - 1e-3], 1)


def curves(rows):
    found = {}
    for row in rows:
        found.setdefault((row.transform, row.images), {})[row.level] = row.accuracy
    return found


def example():
    """A clean image that a low frequency makes a 1, and an adversarial one that a stronger high frequency makes a 0."""
    x = (0.5 + wave(2, 0, 0.1))[None, None]  # at 0.25
    return x, x - wave(6, 6, 0.2), torch.tensor([1])  # at 1.06


def test_the_pattern_of_figure_1_in_closed_form():
    """Filtered adversarial accuracy rises with the low frequency and falls with the high one."""
    x, x_adv, y = example()
    radii = (0.0, 0.2, 0.25, 0.5, 1.0, 1.1, 1.4)
    found = curves(accuracy_over_frequency(Detector((2, 0), (6, 6)), x, x_adv, y, radii))
    assert {key: list(accuracies.values()) for key, accuracies in found.items()} == {
        ("low_pass", "clean"): [0, 0, 1, 1, 1, 1, 1],
        ("low_pass", "adversarial"): [0, 0, 1, 1, 1, 0, 0],
        ("merged", "clean"): [0, 0, 0, 0, 0, 1, 1],
        ("merged", "adversarial"): [1, 1, 1, 1, 1, 0, 0],
        ("high_pass", "clean"): [1, 1, 0, 0, 0, 0, 0],
        ("high_pass", "adversarial"): [0, 0, 0, 0, 0, 0, 0],
    }
    assert all(list(accuracies) == list(radii) for accuracies in found.values())


def test_the_whole_spectrum_is_the_image():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(75, 3))
    x, x_adv, y = torch.rand(40, 3, 5, 5), torch.rand(40, 3, 5, 5), torch.randint(3, (40,))
    found = curves(accuracy_over_frequency(network, x, x_adv, y))
    clean, adversarial = (float((network(images).argmax(1) == y).float().mean()) for images in (x, x_adv))
    end = FREQUENCY_SCALE[-1]
    for name in ("low_pass", "merged"):
        assert found[name, "clean"][end] == pytest.approx(clean)
        assert found[name, "adversarial"][end] == pytest.approx(adversarial)
    black = float((network(torch.zeros_like(x)).argmax(1) == y).float().mean())
    assert found["high_pass", "clean"][end] == pytest.approx(black)
    assert {key[0] for key in found} == set(FILTERS)


def test_clipping_is_a_choice():
    """Above the mean, half of a wave is negative: clipped, its lower half is gone and it has a mean again."""

    class Mean(nn.Module):
        def forward(self, x):
            mean = x.mean((1, 2, 3)) - 0.01
            return torch.stack([-mean, mean], 1)

    x, _, y = example()
    for clip, correct in ((True, 1), (False, 0)):
        rows = accuracy_over_frequency(Mean(), x, x, y, [0.0], filters=["high_pass"], clip=clip)
        assert rows[0] == TransformedAccuracy("high_pass", 0.0, "clean", correct, 1)


def test_batches_and_modes_change_nothing():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 3))
    x, y = torch.rand(23, 1, 8, 8), torch.randint(3, (23,))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    first, again = (accuracy_over_frequency(network, x, 1 - x, y, [0.4, 0.9], batch_size=size) for size in (5, 23))
    assert first == again
    assert all(module.training for module in network.modules())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"filters": ["low_pass", "band_pass"]}, "low_pass, merged, high_pass, got 'band_pass'"),
        ({"radii": [0.5, 1.6]}, "radius must lie in .* got 1.6"),
        ({"x": torch.full((1, 1, 16, 16), -0.1)}, r"must lie in \[0, 1\], got values from -0.1"),
        ({"x_adv": torch.ones(1, 1, 16, 8)}, r"one shape, got \(1, 1, 16, 16\) and \(1, 1, 16, 8\)"),
        ({"y": torch.tensor([1, 1])}, r"y must be integer labels of shape \(1,\)"),
        ({"x": torch.ones(0, 1, 16, 16), "x_adv": torch.ones(0, 1, 16, 16), "y": torch.ones(0).long()}, "no images"),
    ],
)
def test_errors_come_before_the_network_runs(changes, told):
    x, x_adv, y = example()
    network = Detector((2, 0))
    with pytest.raises(ValueError, match=told):
        accuracy_over_frequency(network, **({"x": x, "x_adv": x_adv, "y": y} | changes))
    assert network.calls == 0


# Spectra --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (7, 6), (5, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spectrum_against_numpy(size, dtype):
    x = torch.rand(4, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(0))
    total = sum(np.log(np.abs(np.fft.fft2(channel.double().numpy()))) for image in x for channel in image)
    spectrum = log_amplitude_spectrum(x)
    assert spectrum.dtype == torch.float64
    assert np.allclose(spectrum, np.fft.fftshift(total / 12), atol=1e-6)


def test_spectrum_of_a_wave():
    """Of 16 × 16 pixels: the mean 0.5 has 256 · 0.5, each mode of a pair half of 256 · a, all others nothing."""
    x = (0.5 + wave(3, 5, 0.3))[None, None].double()
    expected = torch.full((16, 16), math.log(1 / 255), dtype=torch.float64)
    expected[8, 8] = math.log(128)
    expected[11, 13] = expected[5, 3] = math.log(128 * 0.3)
    torch.testing.assert_close(log_amplitude_spectrum(x), expected, rtol=0, atol=1e-5)


def test_spectrum_of_no_images_is_an_error():
    with pytest.raises(ValueError, match=r"at least one image, got shape \(0, 3, 8, 8\)"):
        log_amplitude_spectrum(torch.ones(0, 3, 8, 8))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        log_amplitude_spectrum(torch.full((1, 3, 8, 8), 255.0))
