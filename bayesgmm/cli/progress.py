"""How far a command is, on standard error: a bar for each stage on a terminal, elsewhere a line for each that lasts."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bayesgmm.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Display, TaskID

NOTICEABLE = 1.0  # seconds that a stage may last before a line names it


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
    )
    with Display(*columns, console=console, transient=True) as display:
        yield Bars(display)


class Bars:
    """A bar for each stage, the first time it is heard of."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()  # samplers report from threads of their own

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """Move the stage's bar."""
        with self._lock:
            if stage not in self._tasks:
                self._tasks[stage] = self._display.add_task(stage, total=None)
            self._display.update(self._tasks[stage], completed=done, total=total or None)


class Lines:
    """A line on standard error that names a stage once it has lasted a second."""

    def __init__(self) -> None:
        self._stage: str | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """Take note that a stage began, went on, or ended."""
        with self._lock:
            if stage != self._stage:
                self.stop()
                self._stage = stage
                self._timer = threading.Timer(NOTICEABLE, print, [f"{stage} ..."], {"file": sys.stderr, "flush": True})
                self._timer.daemon = True
                self._timer.start()
            if 0 < total <= done:
                self.stop()

    def stop(self) -> None:
        """Leave the present stage unnamed, if it has no line yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
