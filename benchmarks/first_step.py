"""A callback that ends ``lightning-adv fit`` at the first training step, for ``startup.py``."""

from __future__ import annotations

import os
from typing import Any

from lightning.pytorch import Callback

REACHED = 40  # no status that Python or the command ends with


class EndAfterFirstStep(Callback):
    """Ends the process where a run has begun: no checkpoint, no figure and no test belong to the start."""

    def on_train_batch_end(self, *args: Any) -> None:
        os._exit(REACHED)
