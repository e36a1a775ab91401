"""What libraries say in every run that is neither the user's nor ours to act on; the command leaves it out."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_ADVERTISEMENTS = (
    # lightning 2.6, trainer/connectors/logger_connector/logger_connector.py: in every run without its own logger
    "💡 Tip: For seamless cloud logging and experiment tracking, try installing "
    "[litlogger](https://pypi.org/project/litlogger/) to enable LitLogger, which logs metrics and artifacts "
    "automatically to the Lightning Experiments platform.",
    # lightning 2.6, trainer/connectors/callback_connector.py: in every run that keeps checkpoints
    "💡 Tip: For seamless cloud uploads and versioning, try installing "
    "[litmodels](https://pypi.org/project/litmodels/) to enable LitModelCheckpoint, which syncs automatically with the "
    "Lightning model registry.",
)

_WARNINGS = (
    # lightning 2.6, utilities/_pytree.py, builds its leaves as torch before 2.9 had them
    "`isinstance(treespec, LeafSpec)` is deprecated, use `isinstance(treespec, TreeSpec) and treespec.is_leaf()` "
    "instead.",
    # lightning 2.6, trainer/call.py: a test of any run's checkpoint, whose training had this observer of ours
    "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided during "
    "`Trainer` instantiation. Please add the following callbacks: ['Throughput'].",
)


@contextmanager
def without_noise() -> Iterator[None]:
    """Leave these messages out, each by its whole text, so that a changed one is seen."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(_is_news)
    try:
        with warnings.catch_warnings():
            for message in _WARNINGS:
                warnings.filterwarnings("ignore", message=f"{re.escape(message)}$")
            yield
    finally:
        logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return record.getMessage() not in _ADVERTISEMENTS
