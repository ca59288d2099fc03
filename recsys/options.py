"""What the commands share: each option once, one reader of dates, one way to put out JSON.

An alias is used as a parameter's annotation, `log: LogOption`; a default makes the option optional. What
`--config` names is read by `features.definitions.read_config`, which knows the kinds of features too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, Final, Literal

import typer
from pydantic_core import to_json

from recsys.config import MAX_WORKERS
from recsys.files import write_whole

STANDARD_OUTPUT: Final = Path("-")


@dataclass(frozen=True, slots=True)
class DayRange:
    """Days from the first to the last, both included."""

    first: date
    last: date


def parse_date(text: str) -> date:
    """Read one day.

    Raises: BadParameter, to which typer adds the option's name.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no date; write YYYY-MM-DD") from None


def parse_range(text: str) -> DayRange:
    """Read `A:B`, two days.

    Raises: BadParameter, also without a colon and when B is before A.
    """
    first, colon, last = text.partition(":")
    if not colon:
        raise typer.BadParameter(f"{text!r} is no range; write A:B, like 2026-01-28:2026-01-30")
    days = DayRange(parse_date(first), parse_date(last))
    if days.first > days.last:
        raise typer.BadParameter(f"{first} is after {last}; write the earlier day first")
    return days


def parse_workers(text: str) -> int | Literal["auto"]:
    """Read a number of workers, or `auto`.

    Raises: BadParameter, to which typer adds the option's name.
    """
    if text == "auto":
        return "auto"
    if not (text.isdecimal() and 1 <= int(text) <= MAX_WORKERS):
        raise typer.BadParameter(f"{text!r} is neither auto nor a number from 1 to {MAX_WORKERS}")
    return int(text)


def parse_numbers(text: str, most: int = 1_000_000) -> list[int]:
    """Read whole numbers from 1 to `most`, `A,B,…`.

    Raises: BadParameter, to which typer adds the option's name.
    """
    numbers = text.split(",")
    for number in numbers:
        if not (number.isdecimal() and 1 <= int(number) <= most):
            raise typer.BadParameter(f"{number!r} is not a number from 1 to {most}; write A,B,… like 1,4,16")
    return [int(number) for number in numbers]


def json_place(text: str) -> Path:
    """Read the place of `--json`: a file, or - for standard output. Raises: as `file_place`."""
    return STANDARD_OUTPUT if Path(text) == STANDARD_OUTPUT else file_place(text)


def file_place(text: str) -> Path:
    """Read the place of a file, and test it: what cannot be written is refused before hours of work.

    Raises: BadParameter, to which typer adds the option's name.
    """
    place = Path(text)
    if not place.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {place.parent}; make it first")
    if place.is_dir():
        raise typer.BadParameter(f"{place} is a folder; name a file in it")
    try:
        with TemporaryFile(dir=place.parent):
            pass
    except OSError as error:
        raise typer.BadParameter(f"{place.parent}: {error.strerror}; choose another file") from error
    return place


def put_json(value: Any, place: Path | None, show: Callable[[], None]) -> None:
    """Write a result to the place that `--json` names, and show it as tables.

    With `-` the JSON goes to standard output, and nothing is shown: a program reads it.
    Args: value: a pydantic model, or JSON values; NaN, which is no JSON, is written as null.
    """
    text = _json(value, indent=1)
    if place == STANDARD_OUTPUT:
        print(text)
        return
    if place is not None:
        write_whole(place, text + "\n")
    show()


def put_json_line(value: Any, place: Path | None, show: Callable[[], None], *, append: bool) -> None:
    """Write one of several results, a line each, as it comes; otherwise as `put_json`.

    Args: append: keep the lines that are there.
    """
    line = _json(value)
    if place == STANDARD_OUTPUT:
        print(line, flush=True)
        return
    if place is not None:
        with place.open("a" if append else "w", encoding="utf-8") as stream:
            stream.write(line + "\n")
    show()


def _json(value: Any, indent: int | None = None) -> str:
    return to_json(value, indent=indent, by_alias=False, inf_nan_mode="null", fallback=str).decode()


ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The run's TOML file; default: the simulated shop's."),
]
RequiredConfigOption = Annotated[Path, typer.Option("--config", metavar="FILE", help="The run's TOML file.")]
LogOption = Annotated[Path, typer.Option("--log", metavar="FOLDER", help="The interaction log.")]
RunsOption = Annotated[
    Path,
    typer.Option("--runs", metavar="FOLDER", help="Where stages, bundles, the registry and the store are."),
]
StagesOption = Annotated[
    Path | None,
    typer.Option(
        "--runs",
        metavar="FOLDER",
        help="Use the stages in this runs folder, and add to them; default: a temporary folder.",
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", metavar="FOLDER", help="The report's folder; made if it is not there.")
]
JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        parser=json_place,
        help="Also write the result to this file as JSON. With - it goes to standard output, without tables.",
    ),
]
DateOption = Annotated[
    date, typer.Option("--date", metavar="YYYY-MM-DD", parser=parse_date, help="The night's business date.")
]
NightOption = Annotated[
    date | None,
    typer.Option(
        "--date",
        metavar="YYYY-MM-DD",
        parser=parse_date,
        help="The night's business date; default: the log's last day.",
    ),
]
FromOption = Annotated[
    date, typer.Option("--from", metavar="YYYY-MM-DD", parser=parse_date, help="The first day to look at.")
]
ToOption = Annotated[
    date, typer.Option("--to", metavar="YYYY-MM-DD", parser=parse_date, help="The last day to look at.")
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Of everything random; equal seeds give equal results.")
]
