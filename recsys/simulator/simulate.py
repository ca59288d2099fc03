"""Dials and a seed -> the simulated shop's log in a folder."""

import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.progress import track

from recsys.errors import ConfigError
from recsys.log import InteractionLog
from recsys.schema import TABLES
from recsys.simulator.dials import ShopDials
from recsys.simulator.log_writer import LogCounts, write_log
from recsys.simulator.shop import Shop


def simulate(dials: ShopDials, seed: int, out: Path, console: Console) -> tuple[date, LogCounts]:
    """Write a log with a progress bar over its days; return its first day and what it holds."""
    counts = LogCounts()
    steps = write_log(Shop.from_seed(dials, seed), InteractionLog(out))
    for _, so_far in track(steps, "simulating", total=dials.days, console=console, transient=True):
        counts = so_far
    return dials.first_day, counts


def make_dials(*, days: int, users: int, items: int, others: Sequence[str] = ()) -> ShopDials:
    """Set the dials that the command line has, and others written NAME=VALUE.

    Raises: ConfigError, naming the option that is unknown or out of range.
    """
    given: dict[str, object] = {"days": days, "users": users, "items": items}
    for text in others:
        name, equals, value = text.partition("=")
        if not equals or name not in ShopDials.model_fields:
            raise ConfigError(
                f"--dial {text!r} is not NAME=VALUE of a dial; known: {', '.join(ShopDials.model_fields)}"
            )
        given[name] = value
    try:
        return ShopDials.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"--{first['loc'][0]} {first['input']}: {first['msg'].lower()}; choose another value"
        ) from None


def clear_folder(out: Path, *, force: bool) -> None:
    """Make sure that a log may be written to a folder.

    With force, a log's tables and truth are removed, and nothing else.
    Raises: ConfigError when it is a file, or holds anything and force is not set.
    """
    if out.is_dir():
        if any(out.iterdir()) and not force:
            raise ConfigError(
                f"--out {out} is not empty; choose a new folder, or replace its log with --force"
            )
        for name in (*TABLES, "truth"):
            shutil.rmtree(out / name, ignore_errors=True)
    elif out.exists():
        raise ConfigError(f"--out {out} is a file; choose a folder")
