"""How the text of a table is written: the sign between its cells, its notation of numbers, and its header.

All of it is found in the first lines, unless it was asked for: the text is parted by each separator in turn, and the
one is taken under which most cells are numbers. `csv.Sniffer` counts signs instead, those within quotes too.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bayesgmm.cli.numerals import NOTATIONS, Notation, is_missing
from bayesgmm.errors import InputError
from bayesgmm.names import counted

SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "bars", ",": "commas", " ": "blanks"}
SAMPLE = 1 << 16  # characters that the dialect is found in


@dataclass(frozen=True, slots=True)
class TextOptions:
    """What a user has said of how a table is written; None is to be found out.

    Attributes
    ----------
    header : int or None
        Lines at the top that name the columns; 0 if none does.
    separator, decimal, thousands : str or None
    missing : tuple of str
        What stands for a missing value, besides empty cells and the usual words.
    """

    header: int | None = None
    separator: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a text is written.

    Attributes
    ----------
    separator : str
        Between cells; a blank stands for any number of them.
    notation : Notation
    comments : int
        Lines at the top that begin with #.
    header : int
        Records after these that name the columns.
    names : tuple of str
        Of the columns; x0, x1, ... where nothing names them.
    doubt : str
        What may be wrong with the header, in a sentence, or "".
    """

    separator: str
    notation: Notation
    comments: int
    header: int
    names: tuple[str, ...]
    doubt: str = ""


class Record(NamedTuple):
    """The cells of a record and the line that it starts on."""

    line: int
    cells: list[str]


def records(lines: Iterable[str], separator: str) -> Iterator[Record]:
    """The records of a text that are not blank, with stripped cells."""
    if separator == " ":
        lines = (line.strip(" \n") + "\n" for line in lines)
    reader, start = csv.reader(lines, delimiter=separator, skipinitialspace=True), 1
    for cells in reader:
        stripped = [cell.strip() for cell in cells]
        if stripped not in ([], [""]):
            yield Record(start, stripped)
        start = reader.line_num + 1


def find_dialect(sample: str, options: TextOptions, name: str) -> Dialect:
    """The dialect of a text.

    Parameters
    ----------
    sample : str
        The text, or its first `SAMPLE` characters.
    options : TextOptions
    name : str
        What to call the text.

    Raises
    ------
    InputError
        If it has no lines, or its numbers can be read in two ways.
    """
    lines = sample.splitlines(keepends=True)
    if len(sample) == SAMPLE and len(lines) > 1:
        del lines[-1]  # it may be cut
    comments = list(itertools.takewhile(lambda line: line.startswith("#") or not line.strip(), lines))
    lines = lines[len(comments) :]
    if not lines:
        raise InputError(f"{name} is empty")
    separators = SEPARATORS if options.separator is None else [options.separator]
    parted = {separator: [cells for _, cells in records(lines, separator)] for separator in separators}
    notations = _notations(options)
    separator = max(parted, key=lambda s: _score(parted[s], notations, options.missing))
    table = parted[separator]
    notation = _notation(table, notations, options, name)
    header, names, doubt = _header(table, notation, options, name)
    if not header and options.header is None:
        named = _named_in(comments, separator, len(names))
        names, doubt = (named, "") if named else (names, doubt)
    return Dialect(separator, notation, len(comments), header, tuple(names), doubt)


def _notations(options: TextOptions) -> list[Notation]:
    """Those that agree with what was asked for, the likeliest first."""
    asked = [
        notation
        for notation in NOTATIONS
        if options.decimal in (None, notation.decimal) and options.thousands in (None, notation.thousands)
    ]
    if asked:
        return asked
    thousands = options.thousands or ""
    return [Notation(options.decimal or ("," if thousands == "." else "."), thousands)]


def _score(
    table: Sequence[list[str]], notations: Sequence[Notation], missing: Sequence[str]
) -> tuple[bool, float, int]:
    """How well a separator parts a text: by how many of its cells are numbers, and what share of all.

    Only records as long as the first count. One column is better than several only if these hold no numbers, and where
    there are none at all, more cells are better.
    """
    width, body = len(table[0]), table[1:] or table
    fitting = [cell for record in body if len(record) == width for cell in record if not is_missing(cell, missing)]
    filled = sum(not is_missing(cell, missing) for record in body for cell in record)
    most = max(_count(fitting, notation) for notation in notations)
    return width > 1 and most > 0, most**2 / max(filled, 1), sum(map(len, table))


def _count(cells: Iterable[str], notation: Notation) -> int:
    return sum(notation.number(cell) is not None for cell in cells)


def _notation(table: Sequence[list[str]], notations: Sequence[Notation], options: TextOptions, name: str) -> Notation:
    """The first notation in which most cells are numbers.

    A plain decimal point needs no other evidence; of the others, none may read the same cells as other numbers.
    """
    cells = [cell for record in table for cell in record if not is_missing(cell, options.missing)]
    counts = {notation: _count(cells, notation) for notation in notations}
    best = max(counts, key=lambda notation: counts[notation])
    if best == Notation():
        return best
    for other in (notation for notation in notations if counts[notation] == counts[best]):
        for cell in cells:
            one, two = best.number(cell), other.number(cell)
            if one is not None and two is not None and one != two:
                raise InputError(
                    f"{cell!r} in {name} may be {one.value:g} or {two.value:g}; give {best.options} for the first, "
                    f"{other.options} for the second"
                )
    return best


def _header(
    table: Sequence[list[str]], notation: Notation, options: TextOptions, name: str
) -> tuple[int, list[str], str]:
    """How many records name the columns, the names, and what may be wrong with them."""
    first, header, doubt = table[0], options.header, ""
    if header is None:
        header = 0 if _is_data(first, notation, options.missing) else 1
        if header == 0:
            line = ", ".join(first[:4]) + ", ..." * (len(first) > 4)
            if _has_fractions(table[1:], notation) and not _has_fractions([first], notation):
                raise InputError(
                    f"the first line of {name} ({line}) may name the columns or be a row; give --header 1 or --header 0"
                )
            doubt = f"the first line of {name} ({line}) is taken for a row; if it names the columns, give --header 1"
    if header > len(table):
        raise InputError(f"{name} has only {counted(len(table), 'line')}; give a smaller --header")
    if header == 0:
        return 0, [f"x{j}" for j in range(len(first))], doubt
    width = max(map(len, table[:header]))
    rows = [record + [""] * (width - len(record)) for record in table[:header]]
    names = [" ".join(filter(None, parts)) for parts in zip(*rows, strict=True)]
    repeated = [column for j, column in enumerate(names) if column and column in names[:j]]
    if repeated:
        more = header < len(table) and not _is_data(table[header], notation, options.missing)
        hint = f", or give --header {header + 1} if the next line names them too" * more
        raise InputError(f"two columns of {name} are called {repeated[0]!r}; rename one{hint}")
    return header, names, ""


def _has_fractions(table: Sequence[list[str]], notation: Notation) -> bool:
    """Whether some number is not whole."""
    numbers = (notation.number(cell) for record in table for cell in record)
    return any(number.value % 1 > 0 for number in numbers if number is not None)


def _is_data(first: list[str], notation: Notation, missing: Sequence[str]) -> bool:
    """Whether a first record is data: all of it numbers or gaps, or a fraction among it, which is no name."""
    numbers = [notation.number(cell) for cell in first if not is_missing(cell, missing)]
    return bool(numbers) and (None not in numbers or any(x is not None and x.value % 1 for x in numbers))


def _named_in(comments: Sequence[str], separator: str, width: int) -> list[str] | None:
    """The names that the last comment has, as `numpy.savetxt` writes them, if it has one for each column."""
    for line in comments[::-1][:1]:
        for _, cells in records([line.lstrip("# ")], separator):
            if len(cells) == width and all(Notation().number(cell) is None for cell in cells):
                return cells
    return None


def described(separator: str) -> str:
    """A separator in words: "semicolons"."""
    return SEPARATORS.get(separator, repr(separator))
