"""What every part promises, as ready checks: for parts of one's own, and for those of this package."""

from lightning_adv.testing.attacks import check_attack
from lightning_adv.testing.engines import check_engine
from lightning_adv.testing.images import SmallImages
from lightning_adv.testing.observers import check_observer
from lightning_adv.testing.regimes import check_regime
from lightning_adv.testing.sections import check_section

__all__ = ["SmallImages", "check_attack", "check_engine", "check_observer", "check_regime", "check_section"]
