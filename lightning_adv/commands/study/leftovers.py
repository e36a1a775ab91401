"""What a run leaves in its process, taken away: the next run in the same process is as one in a process of its own."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, torch.set_default_device),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (torch.multiprocessing.get_sharing_strategy, torch.multiprocessing.set_sharing_strategy),
    (lambda: torch.backends.cudnn.benchmark, lambda value: setattr(torch.backends.cudnn, "benchmark", value)),
    (lambda: torch.backends.cudnn.deterministic, lambda value: setattr(torch.backends.cudnn, "deterministic", value)),
)
"""What a Trainer or a user's own code sets for the whole process: how to ask for it, and how to set it."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def no_leftovers() -> Iterator[None]:
    """Put all back that a run in a block changes for the whole process, and free what it has used.

    That is the random states, the environment, the working directory, Python's search path and arguments, filters of
    warnings, loggers, handlers of signals, the settings of torch, compiled graphs, the settings and figures of
    matplotlib, a run of W&B that is open, and memory. What was imported stays.

    Example:
        >>> with no_leftovers():
        ...     torch.set_default_dtype(torch.float64)
        >>> torch.get_default_dtype()
        torch.float32
    """
    with ExitStack() as stack:
        for part in (warnings.catch_warnings, _random, _python, _loggers, _signals, _torch):
            stack.enter_context(part())
        gc.freeze()  # what is there is not looked through below: Lightning alone has hundred thousands of objects
        try:
            yield
        finally:
            _close_libraries()
            gc.collect()
            gc.unfreeze()
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's
                torch.cuda.empty_cache()


@contextmanager
def _random() -> Iterator[None]:
    """Lightning's ``isolate_rng`` puts nothing back after an error (2.6)."""
    own, numpys, torchs = random.getstate(), np.random.get_state(), torch.get_rng_state()
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch's
    cuda = torch.cuda.get_rng_state_all() if used else None
    try:
        yield
    finally:
        random.setstate(own)
        np.random.set_state(numpys)
        torch.set_rng_state(torchs)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def _python() -> Iterator[None]:
    environment, folder, path, arguments = dict(os.environ), os.getcwd(), list(sys.path), sys.argv
    try:
        yield
    finally:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        os.chdir(folder)
        sys.path[:] = path
        sys.argv = arguments


@contextmanager
def _loggers() -> Iterator[None]:
    known = [one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    before = [
        (one, one.level, one.propagate, one.disabled, list(one.handlers), list(one.filters))
        for one in [logging.root, *known]
    ]
    disabled = logging.root.manager.disable
    try:
        yield
    finally:
        logging.disable(disabled)
        for one, level, propagate, off, handlers, filters in before:
            one.setLevel(level)
            one.propagate, one.disabled, one.handlers[:], one.filters[:] = propagate, off, handlers, filters


@contextmanager
def _signals() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only there can a signal be taken
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def _torch() -> Iterator[None]:
    before = [ask() for ask, _ in _SETTINGS]
    try:
        yield
    finally:
        for (ask, put), value in zip(_SETTINGS, before, strict=True):
            if ask() != value:
                put(value)
        if "torch._dynamo" in sys.modules:  # of one network after the other, its limit on graphs of a function
            torch.compiler.reset()


def _close_libraries() -> None:
    """Close what libraries keep open until the end of their process, if they are in use."""
    if (wandb := sys.modules.get("wandb")) is not None and getattr(wandb, "run", None) is not None:
        wandb.finish()  # the next run would go on in this one
    if (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        pyplot.close("all")
    if (matplotlib := sys.modules.get("matplotlib")) is not None:
        matplotlib.rc_file_defaults()
