"""Write small files and convert them with a mapping."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.sources.conversion import ConversionSummary
from features.sources.mapped.convert import convert_mapped
from features.sources.mapped.mapping import parse_mapping
from recsys.log import InteractionLog

EVENTS = {
    "user": "user_id",
    "item": "product_id",
    "kind": "event",
    "time": "at",
    "kinds": {"view": "impression", "click": "click", "order": "purchase"},
}


@dataclass
class Workbench:
    """A folder of raw files and the log made from them."""

    root: Path
    summary: ConversionSummary | None = None
    made: int = field(default=0)

    @property
    def src(self) -> Path:
        return self.root / "raw files"

    def csv(self, name: str, text: str) -> None:
        """Write a CSV file; lines may be indented."""
        self.src.mkdir(exist_ok=True)
        lines = [line.strip() for line in text.strip().splitlines()]
        (self.src / name).write_text("\n".join(lines) + "\n", encoding="utf-8")

    def convert(
        self, mapping: dict[str, Any], *, form: str = "csv", src: Path | None = None
    ) -> InteractionLog:
        """Convert the folder into a new log."""
        self.made += 1
        log = InteractionLog(self.root / f"log-{self.made}")
        checked = parse_mapping(mapping, "MAP")
        self.summary = convert_mapped(src or self.src, log, checked, form=form, name=form)
        return log

    def read(self, log: InteractionLog, table: str) -> pl.DataFrame:
        """Read all days of a table, the day as a column, in the order of time."""
        days = log.days(table)
        return pl.concat([log.read(table, d).with_columns(day=d) for d in days], how="diagonal_relaxed")


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """Give an empty folder for raw files."""
    return Workbench(tmp_path)


@pytest.fixture
def events() -> Callable[..., dict[str, Any]]:
    """Give a maker of mappings of one events file; arguments change the [events] section."""
    return lambda **changes: {"events": {**EVENTS, **changes}}
