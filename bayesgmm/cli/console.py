"""Where a command says what: results on standard output, or JSON there and all else on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console

from bayesgmm.cli import progress
from bayesgmm.names import one_line
from bayesgmm.progress import Progress, silent

if TYPE_CHECKING:
    from rich.table import Table

_PLAIN_WIDTH = 100  # columns where the output is not a terminal


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Leave it to the command."""
        raise BrokenPipeError


@dataclass(frozen=True, slots=True)
class Output:
    """What a command prints.

    Attributes
    ----------
    as_json : bool
        Whether standard output is for one JSON value alone.
    quiet : bool
        Whether to print neither the report nor progress.
    """

    as_json: bool = False
    quiet: bool = False

    def progress(self) -> AbstractContextManager[Progress]:
        """Progress that is shown until the block ends."""
        return contextlib.nullcontext(silent) if self.quiet else progress.progress_shown()

    @property
    def console(self) -> Console:
        """Where the report goes."""
        file = sys.stderr if self.as_json else sys.stdout
        width = None if file.isatty() else _PLAIN_WIDTH
        return _Console(file=file, width=width, markup=False, emoji=False, highlight=False, quiet=self.quiet)

    def page(self, items: Iterable[Table | str]) -> None:
        """Print tables and paragraphs."""
        console = self.console
        for item in items:
            console.print(item)

    def sentences(self, sentences: Iterable[str]) -> None:
        """Print sentences, each on a line of its own, whatever the names in it."""
        self.page(map(one_line, sentences))

    def value(self, value: Any) -> None:
        """Print what the command found, if it is wanted as JSON."""
        if self.as_json:
            print(json.dumps(value, indent=2, allow_nan=False))


def note(text: str) -> None:
    """Say what was decided, or may be wrong, on standard error."""
    print("bayesgmm: note:", one_line(text), file=sys.stderr, flush=True)
