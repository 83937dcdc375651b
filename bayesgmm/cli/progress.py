"""How far a command is, on standard error: a bar for each stage on a terminal, elsewhere a line for each that lasts."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bayesgmm.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Display, TaskID

NOTICEABLE = 1.0  # seconds that a stage may last before a line names it
AGAIN = 30.0  # seconds until another line says how far it is
MANY = 10_000  # things to do, such as rows, whose pace is worth telling
SHOWN = 8  # bars at a time


@contextmanager
def progress_shown() -> Iterator[Progress]:
    """Progress that is shown until the block ends; a total of 0 is one that is not known yet."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress as Display, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, markup=False)
    if not console.is_terminal:
        lines = Lines()
        try:
            yield lines
        finally:
            lines.stop()
        return
    columns = (
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
    )
    with Display(*columns, console=console, transient=True) as display:
        yield Bars(display)


def pace(done: int, total: int, seconds: float) -> str:
    """How many of very many things, such as rows, are done a second, and how long the others will take.

    Examples
    --------
    >>> pace(3_000_000, 12_000_000, 2.0), pace(3, 12, 2.0)
    ('1.5e+06/s, 6 s left', '')
    """
    if total < MANY or not 0 < done < total or not seconds:
        return ""
    left = seconds * (total - done) / done
    return f"{done / seconds:.2g}/s, {f'{left / 60:.0f} min' if left > 100 else f'{left:.0f} s'} left"


class Bars:
    """A bar for each stage, the first time it is heard of; of many stages only the last."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}
        self._lock = threading.Lock()  # samplers report from threads of their own

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """Move the stage's bar."""
        with self._lock:
            if stage not in self._tasks:
                self._tasks[stage] = self._display.add_task(stage, total=None, pace="")
                self._began[stage] = time.monotonic()
                for other in list(self._tasks.values())[:-SHOWN]:
                    self._display.update(other, visible=False)
            how = pace(done, total, time.monotonic() - self._began[stage])
            self._display.update(self._tasks[stage], completed=done, total=total or None, pace=how)


class Lines:
    """A line on standard error that names a stage once it has lasted a second, and others while it lasts."""

    def __init__(self) -> None:
        self._stage: str | None = None
        self._timer: threading.Timer | None = None
        self._began = self._said = 0.0
        self._lock = threading.Lock()

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """Take note that a stage began, went on, or ended."""
        with self._lock:
            now = time.monotonic()
            if stage != self._stage:
                self.stop()
                self._stage, self._began, self._said = stage, now, now
                self._timer = threading.Timer(NOTICEABLE, _say, [f"{stage} ..."])
                self._timer.daemon = True
                self._timer.start()
            if 0 < total <= done:
                self.stop()
            elif now - self._said >= AGAIN and (how := pace(done, total, now - self._began)):
                self._said = now
                _say(f"{stage}: {done / total:.0%}, {how}")

    def stop(self) -> None:
        """Leave the present stage unnamed, if it has no line yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
