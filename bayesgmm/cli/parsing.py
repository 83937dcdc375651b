"""A parser of arguments that says what was probably meant, and what the texts of arguments mean."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from bayesgmm.cli.dialects import TextOptions
from bayesgmm.errors import InputError
from bayesgmm.names import did_you_mean

_SEPARATORS = {"tab": "\t", r"\t": "\t", "blank": " ", "space": " ", "comma": ",", "semicolon": ";", "bar": "|"}


class Parser(argparse.ArgumentParser):
    """Raises what is wrong with the arguments instead of printing the usage and leaving."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        raise InputError(f"{message} (see {self.prog} --help)")

    def options(self) -> list[str]:
        """The names of the options."""
        return [name for name in self._option_string_actions if name.startswith("--")]

    def complete(self, by_metavar: Mapping[str, Any]) -> None:
        """Tell shtab how to complete the values of arguments, by what the help calls them."""
        for action in self._actions:
            if isinstance(action.metavar, str) and action.metavar in by_metavar:
                action.complete = by_metavar[action.metavar]  # type: ignore[attr-defined]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(action, f"{value!r} is none of {', '.join(known)}{did_you_mean(value, known)}")


def parsed(main: Parser, commands: Mapping[str, Parser], argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of a command line.

    Raises
    ------
    InputError
        Where they cannot be used, with what was probably meant.
    """
    arguments, unknown = main.parse_known_args(argv)
    if unknown:
        command = commands.get(arguments.command, main)
        option = unknown[0].partition("=")[0]
        hint = did_you_mean(option, command.options()) if option.startswith("-") else ""
        command.error(f"unknown argument {option!r}{hint}")
    return arguments


def separator(text: str) -> str:
    r"""The separator that a text stands for.

    Examples
    --------
    >>> separator("tab"), separator(";")
    ('\t', ';')
    """
    sign = _SEPARATORS.get(text, text)
    if len(sign) != 1 or sign in '"\r\n':
        raise argparse.ArgumentTypeError(f"{text!r} is neither one sign nor one of tab, blank, comma, semicolon, bar")
    return sign


def whole_number(least: int) -> Any:
    """A type of argument: whole numbers from ``least`` on."""

    def number(text: str) -> int:
        if not text.lstrip("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
        return int(text)

    return number


def component_counts(text: str) -> list[int]:
    """The numbers of components that a text such as "3" or "1:6" stands for.

    Examples
    --------
    >>> component_counts("3"), component_counts("1:4")
    ([3], [1, 2, 3, 4])
    """
    first, colon, last = text.partition(":")
    if not (first.isdecimal() and (last.isdecimal() or not colon)):
        raise InputError(f"-k takes a number of components such as 3, or a range such as 1:6, not {text!r}")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high:
        raise InputError(f"-k counts components from 1 upwards, so {text!r} names none")
    return list(range(low, high + 1))


def names_in(text: str, argument: str) -> list[str]:
    """The names in a list with commas between them; a name that has a comma itself is in quotes.

    Examples
    --------
    >>> names_in('length, "width, in mm"', "--columns")
    ['length', 'width, in mm']
    """
    names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    if not names or "" in names or len(set(names)) < len(names):
        raise InputError(f"{argument} takes different names with commas between them, not {text!r}")
    return names


def columns_of(arguments: argparse.Namespace) -> list[str] | None:
    """The columns to use, or None for all."""
    return None if arguments.columns is None else names_in(arguments.columns, "--columns")


def text_options(arguments: argparse.Namespace) -> TextOptions:
    """What the arguments say of how a table is written."""
    missing = () if arguments.missing is None else names_in(arguments.missing, "--missing")
    return TextOptions(**chosen(arguments, "header", "separator", "decimal", "thousands"), missing=tuple(missing))


def chosen(values: object, *names: str) -> dict[str, Any]:
    """Some of the arguments, or of the settings made from them, by name."""
    return {name: getattr(values, name) for name in names}
