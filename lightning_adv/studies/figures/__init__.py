"""The figure of a study, as the papers draw theirs: lines, bars, medians with and without, scatter."""

from lightning_adv.studies.figures.draw import draw_study, settings_of
from lightning_adv.studies.figures.settings import FIGURE_KINDS, FigureSettings, check_figure, choose_figure
from lightning_adv.studies.figures.values import Medians, medians_by_part

__all__ = [
    "FIGURE_KINDS", "FigureSettings", "Medians", "check_figure", "choose_figure", "draw_study", "medians_by_part",
    "settings_of",
]  # fmt: skip
