"""Adversarial training regimes, attacks and mid-training analysis for PyTorch Lightning.

The rooms: :mod:`lightning_adv.attacks` (the inner maximisation), :mod:`lightning_adv.nn` (parts of networks),
:mod:`lightning_adv.regimes` (what is minimised on a batch), :mod:`lightning_adv.data`,
:mod:`lightning_adv.analysis` (pure functions), :mod:`lightning_adv.callbacks` (thin observers) and
:mod:`lightning_adv.cli`. Nothing is imported here, so that ``lightning-adv --help`` answers at once.
"""

from lightning_adv._version import __version__
from lightning_adv.core.moved import find_moved_modules

__all__ = ["__version__"]

find_moved_modules()
