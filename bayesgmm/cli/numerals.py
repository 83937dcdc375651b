"""Numbers as people write them: with a decimal point or comma, signs between thousands, per cent and currencies."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", ".", "-", "--", "#n/a", "<na>"})
_UNITS = "%‰$€£¥₹"
_NOT_FINITE = {sign + name for sign in ("", "-", "+") for name in ("inf", "infinity")}
_ALIKE = {" ": " \u00a0\u2009\u202f", "'": "'’"}  # signs that look the same


class Numeral(NamedTuple):
    """A number and the sign of its unit, such as "%", or none."""

    value: float
    unit: str = ""


@dataclass(frozen=True)
class Notation:
    """How numbers are written.

    Attributes
    ----------
    decimal : str
        The sign before the decimals.
    thousands : str
        The sign between groups of three digits; "" if there is none.

    Examples
    --------
    >>> Notation(",", ".").number("1.234,5"), Notation().number("-12 %"), Notation().number("1,5")
    (Numeral(value=1234.5, unit=''), Numeral(value=-12.0, unit='%'), None)
    """

    decimal: str = "."
    thousands: str = ""

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        point = re.escape(self.decimal)
        decimals = r"\d*" if self.decimal == "." else r"\d+"  # "1." is a number, "1," the end of a cell
        whole = r"\d+"
        if self.thousands:
            whole = rf"[1-9]\d{{0,2}}(?:[{self._between}]\d{{3}})+|{whole}"
        number = rf"(?:(?:{whole})(?:{point}{decimals})?|{point}\d+)(?:[eE][-+]?\d+)?"
        return re.compile(rf"([-+−]?)\s?([{_UNITS}]?)\s?([-+−]?)({number})\s?([{_UNITS}]?)")

    @property
    def _between(self) -> str:
        return "".join(map(re.escape, _ALIKE.get(self.thousands, self.thousands)))

    def number(self, cell: str) -> Numeral | None:
        """The number that a cell holds; None if it holds anything else."""
        cell = cell.strip()
        if cell.lower() in _NOT_FINITE:
            return Numeral(float(cell))
        match = self._pattern.fullmatch(cell)
        if match is None:
            return None
        first, before, second, digits, after = match.groups()
        if (first and second) or (before and after):
            return None
        if self.thousands:
            digits = re.sub(f"[{self._between}]", "", digits)
        value = float(digits.replace(self.decimal, "."))
        return Numeral(-value if first + second in ("-", "−") else value, before + after)

    @property
    def options(self) -> str:
        """The options of the command line that ask for it."""
        thousands = f" --thousands {shlex.quote(self.thousands)}" if self.thousands else ""
        return f"--decimal {shlex.quote(self.decimal)}{thousands}"


NOTATIONS = [Notation(), Notation(","), *(Notation(d, t) for d, t in (".,", ",.", ". ", ", ", ".'", ",'"))]


def is_missing(cell: str, others: Collection[str] = ()) -> bool:
    """Whether a cell says that there is no value, in the usual words or in these others."""
    text = cell.strip().lower()
    return text in MISSING or text in others
