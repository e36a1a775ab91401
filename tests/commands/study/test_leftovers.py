import logging
import os
import random
import signal
import sys
import warnings

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot

from lightning_adv.commands.study.leftovers import no_leftovers


def another_handler(*_): ...


CHANGES = {
    "random state of torch": (lambda: torch.get_rng_state().tolist(), lambda: torch.manual_seed(7)),
    "random state of NumPy": (lambda: np.random.get_state()[1].tolist(), lambda: np.random.seed(7)),
    "random state of Python": (random.getstate, lambda: random.seed(7)),
    "new variable": (lambda: dict(os.environ), lambda: os.environ.update(PL_GLOBAL_SEED="7")),
    "changed variable": (lambda: dict(os.environ), lambda: os.environ.update(OMP_NUM_THREADS="7")),
    "variable taken away": (lambda: dict(os.environ), lambda: os.environ.pop("OMP_NUM_THREADS")),
    "folder": (os.getcwd, lambda: os.chdir("/")),
    "search path": (lambda: list(sys.path), lambda: sys.path.append("/")),
    "arguments": (lambda: list(sys.argv), lambda: setattr(sys, "argv", ["x"])),
    "filters": (lambda: list(warnings.filters), lambda: warnings.simplefilter("error")),
    "handlers": (lambda: list(logging.root.handlers), lambda: logging.root.addHandler(logging.NullHandler())),
    "level": (lambda: logging.getLogger("lightning").level, lambda: logging.getLogger("lightning").setLevel(7)),
    "all levels": (lambda: logging.root.manager.disable, lambda: logging.disable(logging.ERROR)),
    "signals": (lambda: signal.getsignal(signal.SIGTERM), lambda: signal.signal(signal.SIGTERM, another_handler)),
    "threads": (torch.get_num_threads, lambda: torch.set_num_threads(2)),
    "dtype": (torch.get_default_dtype, lambda: torch.set_default_dtype(torch.float64)),
    "device": (torch.get_default_device, lambda: torch.set_default_device("meta")),
    "matmul": (torch.get_float32_matmul_precision, lambda: torch.set_float32_matmul_precision("medium")),
    "deterministic": (torch.are_deterministic_algorithms_enabled, lambda: torch.use_deterministic_algorithms(True)),
    "gradients": (torch.is_grad_enabled, lambda: torch.set_grad_enabled(False)),
    "anomalies": (torch.is_anomaly_enabled, lambda: torch.autograd.set_detect_anomaly(True)),
    "benchmark": (lambda: torch.backends.cudnn.benchmark, lambda: setattr(torch.backends.cudnn, "benchmark", True)),
    "style": (lambda: matplotlib.rcParams["figure.dpi"], lambda: matplotlib.rcParams.update({"figure.dpi": 7})),
    "figures": (pyplot.get_fignums, pyplot.figure),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("change", CHANGES)
def test_what_a_block_changes_is_put_back_also_after_an_error(change, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ask, put = CHANGES[change]
    before = ask()

    def run():
        with no_leftovers():
            put()
            assert ask() != before, "it is a change"
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block"):
        run()
    assert ask() == before


def test_memory_is_freed():
    class Network:
        freed = False

        def __del__(self):
            Network.freed = True

    with no_leftovers():
        network = Network()
        network.trainer = {"of": network}  # as a Trainer and its module hold one another
        del network
    assert Network.freed


@pytest.mark.slow
def test_a_compiled_network_is_compiled_again():
    """A function is compiled a few times only, and runs uncompiled from then on: each run counts anew."""
    counts = []

    def backend(graph, inputs):
        counts.append(1)
        return graph.forward

    def step(x, add):
        return x + add

    for _ in range(2):
        with no_leftovers():
            torch.compile(step, backend=backend)(torch.ones(2), torch.ones(2))
    assert len(counts) == 2
