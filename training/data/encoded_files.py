"""One day's encoded rows in files: written once, read a chunk at a time as often as training needs them."""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.days import Days
from features.encode import Encoded, Encoder
from features.sequences import EncodedEvents
from recsys.errors import DataError
from recsys.inputs import Bag
from recsys.tasks import TaskSpec
from training.crosses import CrossTable
from training.data.array_files import DESCRIBED, ArrayReader
from training.data.day_writer import EVENTS, DayWriter
from training.data.encoded_rows import EncodedRows
from training.data.list_rows import ListRows, RowState

_INTEGERS = ("user_row", "item_row", "position", "user_key", "shown_at")
"""Of a row; narrower in files, int64 in memory."""
_INSTANT = ("state_at", "start", "stop")
"""The same, of the instant of its state."""


class EncodedFiles:
    """One day's examples in a folder; tables that rows point to are mapped, rows are read."""

    def __init__(self, folder: Path) -> None:
        """Map the tables of a folder that `write_day` has finished."""
        self.folder = folder
        self._arrays = arrays = ArrayReader(folder)
        said = arrays.said
        self.size = int(said["size"])
        self.day = date.fromisoformat(said["day"])
        labels = arrays.mapped("labels")
        self.labels = {task: labels[:, k] for k, task in enumerate(said["tasks"])}
        self.weight, self.shown_at, self.user_key = map(arrays.mapped, ("weight", "shown_at", "user_key"))
        self.item_row = arrays.mapped("item_row")
        self._users = _map_encoded(arrays, "user", said["bags"]["user"])
        self.items = _map_encoded(arrays, "item", said["bags"]["item"])
        self._events = EncodedEvents(**{name: arrays.mapped(f"event_{name}") for name in EVENTS})
        self._crosses = tuple(
            CrossTable(
                keys=arrays.mapped(f"cross{n}_keys"),
                item_codes=arrays.mapped(f"cross{n}_item_codes"),
                num_codes=num_codes,
                numbers=arrays.mapped(f"cross{n}_numbers"),
            )
            for n, num_codes in enumerate(said["cross_codes"])
        )

    def read(self, bounds: np.ndarray) -> EncodedRows:
        """Read the examples of some ascending ranges [K, 2] of rows."""
        rows: dict[str, Any] = {name: self._arrays.read(name, bounds).astype(np.int64) for name in _INTEGERS}
        rows["user_row"][rows["user_row"] < 0] = self._users.ids.shape[0] - 1
        listed = self._arrays.said["lists"]
        labels = np.ascontiguousarray(self._arrays.read("labels", bounds).T)
        return EncodedRows(
            day=self.day,
            frame=pl.DataFrame(),
            users=self._users,
            items=self.items,
            crosses=self._crosses,
            events=self._events,
            labels=dict(zip(self._arrays.said["tasks"], labels, strict=True)),
            weight=self._arrays.read("weight", bounds),
            thinned=self._arrays.read("thinned", bounds) if self._arrays.said["thinned"] else None,
            lists=self._arrays.read("lists", bounds) if listed else None,
            held=RowState(**self._state("held_", bounds)) if listed else None,
            **rows,
            **self._state("", bounds),
        )

    def _state(self, prefix: str, bounds: np.ndarray) -> dict[str, Any]:
        """Read what examples have of one instant."""
        ids, numbers = (self._arrays.read(f"{prefix}context_{name}", bounds) for name in ("ids", "numbers"))
        contexts = Encoded(
            ids=ids.astype(np.int64), numbers=numbers, text=np.zeros((ids.shape[0], 0), np.float32)
        )
        instant = {name: self._arrays.read(prefix + name, bounds).astype(np.int64) for name in _INSTANT}
        return {"contexts": contexts, "past": self._arrays.read(f"{prefix}past", bounds), **instant}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedDays:
    """Days in files of one folder; a day is encoded when it is first read, by whichever process is first."""

    folder: Path
    encoder: Encoder
    days: Days
    tasks: Sequence[TaskSpec]
    hidden: Callable[[int], Sequence[str]]
    """Place of a day -> the tasks that are not trained on it: their labels are written as not known."""
    piece_rows: int
    lists: ListRows | None = None
    """What a list is, where order inside lists is trained."""
    past_every: int = 1
    """Periods that share a table of items' neighbours."""
    stream_odds: bool = False
    """Whether rows are told what the draw of negatives adds to logits."""

    def __call__(self, i: int) -> EncodedFiles:
        """Give day i. A killed process leaves days that are whole, which the next one uses, or none.

        Raises: DataError on a full disk, with the bytes that are needed.
        """
        target = self.folder / f"day-{self.days[i].day}"
        if not (target / DESCRIBED).is_file():
            temporary = self.folder / f".{target.name}.{os.getpid()}.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            writer: DayWriter | None = None
            try:
                temporary.mkdir(parents=True)
                writer = DayWriter(
                    self.encoder,
                    self.days,
                    i,
                    self.tasks,
                    temporary,
                    self.lists,
                    self.past_every,
                    stream_odds=self.stream_odds,
                )
                writer.write(self.hidden(i), self.piece_rows)
                os.replace(temporary, target)
            except OSError as error:
                if not (target / DESCRIBED).is_file():  # otherwise another process was faster
                    shutil.rmtree(temporary, ignore_errors=True)
                    raise self._explained(error, i, writer) from error
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return EncodedFiles(target)

    def _explained(self, error: OSError, i: int, writer: DayWriter | None) -> Exception:
        """Say of a full disk how much is needed; any other error is given back. Nothing of day i is left."""
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or writer is None:
            return error
        disk = next(folder for folder in (self.folder, *self.folder.parents) if folder.is_dir())
        free = shutil.disk_usage(disk).free
        return DataError(
            f"cannot write the encoded rows of {self.days[i].day} into {self.folder}: {error.strerror}; they "
            f"need about {writer.num_bytes / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free; free the disk, "
            "or choose a runs folder on a larger one, and run the same command again: what was half written "
            "is removed"
        )


def _map_encoded(arrays: ArrayReader, entity: str, num_bags: int) -> Encoded:
    return Encoded(
        ids=arrays.mapped(f"{entity}_ids"),
        numbers=arrays.mapped(f"{entity}_numbers"),
        text=arrays.mapped(f"{entity}_text"),
        bags=tuple(
            Bag(arrays.mapped(f"{entity}_bag{n}_values"), arrays.mapped(f"{entity}_bag{n}_offsets"))
            for n in range(num_bags)
        ),
    )
