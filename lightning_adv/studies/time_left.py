"""How long a study takes from here on, by the cells that have ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lightning_adv.studies.attempts import read_seconds
from lightning_adv.studies.cells import Plan


class TimeLeft:
    """Estimates the time of cells by the mean of those of their stage that are done.

    Args:
        plan: The study.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._known: dict[str, float] = {}

    def seconds(self, statuses: Mapping[str, str], spent: Iterable[float] = ()) -> tuple[float, list[str]]:
        """Return how long the cells that are still to be run take one after another.

        Args:
            statuses: The status of each cell by id; cells that failed, and those that wait for them, are not run.
            spent: For each cell that is being run the seconds since it began.

        Returns:
            The seconds; and the stages of which no cell is done, whose cells are not in them.
        """
        times: dict[str, list[float]] = {}
        left: list[str] = []
        begun = 0.0
        for cell in self._plan.cells.values():
            status = statuses[cell.id]
            if status == "done" and (seconds := self._seconds(cell.id)) is not None:
                times.setdefault(cell.stage, []).append(seconds)
            elif status == "begun":
                begun += read_seconds(cell.folder) or 0.0
            left += [cell.stage] if status in ("begun", "missing") else []
        means = {stage: sum(each) / len(each) for stage, each in times.items()}
        total = sum(means.get(stage, 0.0) for stage in left) - begun - sum(spent)
        return max(total, 0.0), [stage for stage in dict.fromkeys(left) if stage not in means]

    def _seconds(self, id_: str) -> float | None:
        if id_ not in self._known and (seconds := read_seconds(self._plan.cells[id_].folder)) is not None:
            self._known[id_] = seconds
        return self._known.get(id_)


def duration(seconds: float) -> str:
    """Return a duration in words.

    Example:
        >>> duration(40), duration(700), duration(5400)
        ('40 s', '12 min', '1 h 30 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
