"""How names and numbers of things are put: people call a column whatever they like."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def one_line(text: str) -> str:
    """A text without line breaks, control characters and whatever else cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def short(name: str, length: int = 20) -> str:
    r"""A name on one line, and if it is long without its middle, as names often differ in their ends.

    Examples
    --------
    >>> short("width of the petal, in centimetres", 20), short("two\nlines"), short(" ")
    ('width of...ntimetres', 'two lines', "' '")
    """
    line = one_line(name) or repr(name)
    head = (length - 3) // 2
    return line if len(line) <= length else f"{line[:head]}...{line[head + 3 - length :]}"


def in_picture(name: str) -> str:
    r"""A short name as matplotlib shows it character by character: dollars would start a formula.

    Examples
    --------
    >>> print(in_picture("cost in $ ($)"))
    cost in \$ (\$)
    """
    return short(name, 18).replace("$", r"\$")


def listed(words: Iterable[object], last: str = "and") -> str:
    """The words with commas, and "and" or another word before the last.

    Examples
    --------
    >>> listed(["EM", "LOO", 3]), listed(["EM", "LOO"], "or")
    ('EM, LOO and 3', 'EM or LOO')
    """
    *most, end = (str(word) for word in words)
    return f"{', '.join(most)} {last} {end}" if most else end


def counted(n: int, thing: str) -> str:
    """So many things: "1 row", "2 rows"."""
    return f"{n} {thing}{'s' * (n != 1)}"


def percent(probability: float) -> str:
    """A probability as a percentage, with the digits that it has: "89%", "94.5%"."""
    return f"{100 * probability:g}%"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The known word that is the most like an unknown one, as a question after a semicolon; "" if none is like it.

    Examples
    --------
    >>> did_you_mean("wating", ["eruptions", "waiting"]), did_you_mean("depth", ["eruptions", "waiting"])
    ("; did you mean 'waiting'?", '')
    >>> did_you_mean("fti", ["fit", "select"])
    "; did you mean 'fit'?"
    """
    lower = {name.lower(): name for name in known}
    cutoff = 0.7 if len(word) > 4 else 0.6  # two letters of a short word that have changed places are much of it
    alike = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=cutoff)
    return f"; did you mean {lower[alike[0]]!r}?" if alike else ""
