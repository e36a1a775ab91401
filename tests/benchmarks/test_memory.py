"""What is counted as kept, by hand and against the sizes of the features; the table. No peak is asserted."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import pytest
import torch


@pytest.fixture(scope="module")
def benchmark(script):
    return script("memory")


def test_what_autograd_keeps_by_hand(benchmark, workload):
    """A tanh keeps its output, a linear layer with frozen weights nothing but them, a square its input."""

    class Square(torch.nn.Module):
        def forward(self, x):
            return x**2

    shape = (workload.batch_size, *workload.image_shape)
    features = torch.Size(shape).numel()
    layers = [torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(64, 32), Square(), torch.nn.Linear(32, 10)]
    kept = benchmark.kept(torch.nn.Sequential(*layers), workload)
    assert kept == 4 * (features + workload.batch_size * 32)


def test_a_storage_is_counted_once(benchmark, workload):
    class Twice(torch.nn.Module):
        def forward(self, x):
            x = x.flatten(1).tanh()
            return (x.exp() * x + x * x)[:, :10]

    kept = benchmark.kept(Twice(), workload)
    assert kept == 2 * 4 * workload.batch_size * 64  # tanh and exp


def test_a_view_keeps_less_and_in_bf16_half_of_it(benchmark, workload):
    kept = [benchmark.kept(benchmark.build(name, workload), workload) for name in benchmark.VARIANTS]
    assert kept[1] < 0.6 * kept[0]
    assert kept[2] < 0.6 * kept[1]


def test_a_process_is_measured(benchmark):
    """Its peak when it has attacked is at least that of when all was built."""
    found = benchmark.measure("view", "small_cnn", argparse.Namespace(batch_size=4, threads=1))
    small = replace(benchmark.MEASURED["small_cnn"], batch_size=4)
    assert found["attacked"] >= found["built"] > 50e6  # torch alone takes that
    assert found["kept"] == benchmark.kept(benchmark.build("view", small), small)


def test_the_script_prints_a_row_for_each_variant(benchmark, tmp_path, monkeypatch, capsys):
    small = replace(benchmark.MEASURED["small_cnn"], batch_size=4)
    monkeypatch.setattr(benchmark, "measure", lambda variant, network, args: benchmark.measure_here(variant, small))
    benchmark.main(["--networks", "small_cnn", "--batch-size", "4", "--json", str(tmp_path / "out.json")])
    printed = capsys.readouterr().out
    assert "small_cnn, 4×1×8×8, threads: 1" in printed
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == list(benchmark.VARIANTS)
    assert list(json.loads((tmp_path / "out.json").read_text())["small_cnn"]) == list(benchmark.VARIANTS)


def test_the_figures_of_the_table(benchmark):
    plain = {"kept": 200_000_000, "built": 500_000_000, "attacked": 900_000_000}
    view = {"kept": 50_000_000, "built": 600_000_000, "attacked": 700_000_000}
    rows = benchmark.table({benchmark.PLAIN: plain, "view": view}).splitlines()[2:]
    assert rows == [f"| {benchmark.PLAIN} | 200.0 | 1.000 | 900 | 400 |", "| view | 50.0 | 0.250 | 700 | 100 |"]
