"""How a long computation tells its caller how far it is: a function of the stage, what of it is done, and its total."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol


class Progress(Protocol):
    """Called with the name of a stage, how much of it is done, and how much there is of it."""

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """Take note of it."""


def silent(stage: str, done: int, total: int, /) -> None:
    """Progress that nobody asked for."""


def of_stage(progress: Progress | None, stage: str) -> Callable[[int, int], None]:
    """The part of ``progress`` that one stage needs: a function of what is done and the total."""
    return partial(progress or silent, stage)
