"""Files that are whole or not there: written beside their place and renamed, whenever the process ends; and JSON."""

from __future__ import annotations

import glob
import math
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A temporary path in the same directory, renamed to ``path`` if all goes well and removed if not.

    The directory is made if need be, and what writers of the same path left that were killed is removed, where they
    ran on this machine. Others may share the directory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = platform.node().replace(".", "-")
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        *_, where, process, _ = left.name.split(".")
        if where == machine and not _is_running(process):
            with suppress(OSError):
                left.unlink()
    temporary = path.with_name(f".{path.name}.{machine}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_running(process: str) -> bool:
    """Whether a process of this number is there; not asked on Windows, where a file that is open cannot be removed."""
    if os.name == "nt" or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def plain_json(value: Any) -> Any:
    """A value as JSON has it: no number that is not finite, no numpy scalar.

    Examples
    --------
    >>> plain_json({"share": [0.5, float("nan")]})
    {'share': [0.5, None]}
    """
    if isinstance(value, dict):
        return {key: plain_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
