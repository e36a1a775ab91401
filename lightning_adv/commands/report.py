"""``lightning-adv report``: runs, studies and interpretations as one interactive page."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from types import ModuleType

from lightning_adv.commands.shared.plain_parser import PlainParser
from lightning_adv.commands.shared.telling import told_in_one_line
from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import clear_unfinished, write_whole
from lightning_adv.core.locks import alone
from lightning_adv.core.reading import shorten
from lightning_adv.report import interpretations, runs, studies
from lightning_adv.report.interpretations import Interpretation, is_interpretation, read_interpretation_folder
from lightning_adv.report.page import build_page
from lightning_adv.report.runs import Run, check_folder, name_runs, read_run_folder
from lightning_adv.report.studies import Logged, Study, is_study, read_study_folder
from lightning_adv.report.summary import damage

_MOST_LINES = 20  # that are said on the terminal of what cannot be read; the page has them all


def run_report(arguments: Sequence[str]) -> None:
    """Run the command.

    What cannot be read in a folder is said on the page and on the standard error, and the rest is shown: the
    status is 0 as long as one of them can be.

    Args:
        arguments: The command line after ``report``.

    Raises:
        SystemExit: With status 1 where a folder is not there, nothing can be shown or the page not be written, told in
            one line; 2 where the arguments do not parse.
    """
    given = _parser().parse_args(arguments)
    with told_in_one_line("lightning-adv"):
        report = Report(given.runs, given.output)
        with report.alone():
            if given.follow:
                follow(report, given.interval)
            else:
                report.write()
    print(f"The report is {shorten(given.output, 1000)} ({given.output.stat().st_size / 1e6:.1f} MB)")


class Report:
    """The page of some runs and studies, which can be written again when they have gone on.

    Args:
        folders: Their folders. One that is given twice is shown once.
        output: The file to write.

    Raises:
        UsageError: A folder is not there, the output is a folder, or a path cannot be followed: its links go round in
            a circle.
    """

    def __init__(self, folders: Sequence[Path], output: Path) -> None:
        self.folders = list({_resolve(folder): folder for folder in folders}.values())
        self.output = output
        self._read: dict[Path, tuple[object, Run | Study | Interpretation | UsageError]] = {}
        self._logged: dict[Path, Logged] = {}  # of the runs of studies, of which most do not change between two looks
        self._told: set[str] = set()
        if os.path.isdir(output):  # False of a path that is too long, where Path raises
            shown, better = shorten(output, 1000), shorten(output / "report.html", 1000)
            raise UsageError(f"--output: {shown} is a folder; give a file, such as {better}.")
        for folder in self.folders:
            check_folder(folder)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the page while this process writes it.

        Raises:
            UsageError: Another process does, or the page's folder cannot be written.
        """
        page = self.output.resolve()
        with ExitStack() as held:
            try:
                lock = page.with_name(f".{page.name}.lock")
                held.enter_context(alone(lock, f"--output: {self.output}", instead="give another --output"))
            except OSError as error:
                raise self._unwritable(error) from error
            clear_unfinished(page.parent, page.name)
            yield

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(
            f"--output: {shorten(self.output, 1000)} cannot be written ({os.strerror(error.errno or 0)})."
        )

    @property
    def finished(self) -> bool:
        """Whether every run has ended with its test, and no cell of a study will be run any more."""
        return all(_reader(folder).is_finished(folder) for folder in self.folders)

    def state(self) -> object:
        """Return what changes when a file of any of the runs or studies changes."""
        return [_signature(folder) for folder in self.folders]

    def write(self, reload_seconds: float | None = None) -> None:
        """Write the page, whole or not at all. What has not changed is not read again.

        A run or a study that cannot be shown is left out, which the page and the terminal say.

        Args:
            reload_seconds: After how long the page loads itself again; None for never.

        Raises:
            UsageError: None can be shown, or the page cannot be written.
        """
        names = dict(zip(self.folders, name_runs(self.folders), strict=True))
        found = {names[folder]: self._content(folder) for folder in self.folders}
        of_studies = {name: each for name, each in found.items() if isinstance(each, Study)}
        looked = {name: each for name, each in found.items() if isinstance(each, Interpretation)}
        of_runs = {name: each for name, each in found.items() if isinstance(each, Run)}
        left_out = {name: str(each) for name, each in found.items() if isinstance(each, UsageError)}
        if not of_studies and not looked and not of_runs:
            raise UsageError(next(iter(left_out.values())))
        page = build_page(
            list(of_runs),
            list(of_runs.values()),
            built=datetime.now(),
            reload_seconds=reload_seconds,
            left_out=left_out,
            studies=of_studies,
            interpretations=looked,
        )
        try:
            write_whole(self.output, page)
        except OSError as error:
            raise self._unwritable(error) from error
        shown: dict[str, Run | Study | Interpretation] = {**of_studies, **looked, **of_runs}
        self._tell(damage(list(shown), list(shown.values()), left_out))

    def _content(self, folder: Path) -> Run | Study | Interpretation | UsageError:
        now = _signature(folder)
        if folder not in self._read or self._read[folder][0] != now:
            self._read[folder] = (now, self._read_or_say(folder))
        return self._read[folder][1]

    def _read_or_say(self, folder: Path) -> Run | Study | Interpretation | UsageError:
        try:
            if is_study(folder):
                return read_study_folder(folder, self._logged)
            return read_interpretation_folder(folder) if is_interpretation(folder) else read_run_folder(folder)
        except UsageError as error:
            return error

    def _tell(self, damage: Sequence[tuple[str, str]]) -> None:
        """Say once what cannot be read."""
        lines = [line for of, said in damage if (line := f"{shorten(of)}: {said}") not in self._told]
        self._told.update(lines)
        for line in lines[:_MOST_LINES]:
            sys.stderr.write(f"lightning-adv report: warning: {shorten(line, 500)}\n")
        if len(lines) > _MOST_LINES:
            sys.stderr.write(f"lightning-adv report: warning: {len(lines) - _MOST_LINES} more are on the page.\n")


def _signature(folder: Path) -> object:
    return _reader(folder).signature(folder)


def _reader(folder: Path) -> ModuleType:
    """Return the module that knows what kind of folder it is."""
    return studies if is_study(folder) else interpretations if is_interpretation(folder) else runs


def _resolve(folder: Path) -> Path:
    try:
        return folder.resolve()
    except (OSError, RuntimeError) as error:  # Python 3.13 raises no RuntimeError
        raise UsageError(f"RUN: {shorten(folder, 1000)} cannot be followed ({shorten(error, 1000)}).") from error


def follow(report: Report, interval: float, quiet_seconds: float = 600.0) -> None:
    """Write a page that loads itself again, each time the runs have gone on, until all have ended or Ctrl-C.

    The last page stays as it is. A SIGTERM ends it as Ctrl-C does.

    Args:
        report: The page.
        interval: Seconds between two looks at the folders.
        quiet_seconds: After how long without a change to say, once, that the runs may have stopped.
    """
    written = report.state()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while not report.finished:
            report.write(reload_seconds=interval)
            print(f"{datetime.now():%H:%M:%S} {report.output}; Ctrl-C ends", flush=True)
            written = _wait(report, written, interval, quiet_seconds)
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
    report.write()


def _wait(report: Report, written: object, interval: float, quiet_seconds: float) -> object:
    """Wait until a run has changed or all have ended, and return the state."""
    quiet_from, told = time.monotonic(), False
    while (now := report.state()) == written and not report.finished:
        if not told and time.monotonic() - quiet_from > quiet_seconds:
            told = True
            print(f"No file has changed for {quiet_seconds / 60:g} minutes: the run may have stopped", flush=True)
        time.sleep(interval)
    return now


def _parser() -> argparse.ArgumentParser:
    parser = PlainParser(
        prog="lightning-adv report",
        description="Write runs as one interactive page that needs no network: accuracies, training curves, the "
        "analyses over epochs and layers, figures, and the settings in which the runs differ. Of a study it shows the "
        "figure, over whichever of its keys is chosen, the table, and the training curves of its runs.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="a run folder, as runs/digits-madry/version_0, the folder of a study, or that of an interpretation",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), help="the file to write (default: %(default)s)"
    )
    parser.add_argument(
        "--follow", action="store_true", help="write the page again while the runs go on; the open page follows"
    )
    parser.add_argument(
        "--interval", type=_seconds, default=10.0, help="seconds between two looks with --follow (default: %(default)g)"
    )
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, got {text}")
    return seconds
