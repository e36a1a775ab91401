"""Studies: grids of runs, the engines that run them, and the table and figure of what came out."""

from lightning_adv.studies.cells import Cell, Plan
from lightning_adv.studies.engines.base import Engine, WorkerLostError
from lightning_adv.studies.engines.local import LocalEngine
from lightning_adv.studies.engines.ray import RayEngine
from lightning_adv.studies.engines.slurm import SlurmEngine
from lightning_adv.studies.figures import draw_study
from lightning_adv.studies.folder import StudyFolder, read_study
from lightning_adv.studies.grid import Point, expand
from lightning_adv.studies.study_file import Stage, Study, make_study, read_study_files
from lightning_adv.studies.table import StudyTable, read_study_folder

__all__ = [
    "Cell",
    "Engine",
    "LocalEngine",
    "Plan",
    "Point",
    "RayEngine",
    "SlurmEngine",
    "Stage",
    "Study",
    "StudyFolder",
    "StudyTable",
    "WorkerLostError",
    "draw_study",
    "expand",
    "make_study",
    "read_study",
    "read_study_files",
    "read_study_folder",
]
