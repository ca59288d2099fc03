"""Labels of many impressions: spread over files by a hash of user and item, then joined a share at a time.

Feedback, the impressions that it names and what takes it back have one hash, so they meet in one share. Every
row is written and read once, whatever the number of shares, and memory holds one share.
Source: the hash join of Kitsuregawa, Tanaka and Moto-oka, "Application of hash to data base machine and its
architecture", 1983.
"""

import io
import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import polars as pl

from features.labels import make_labels, may_label
from recsys.schema import empty
from recsys.tasks import TaskSpec

PLACE = "place"
"""The row of an impression in the day's arrays."""
IMPRESSION = ("impression_id", "user_id", "item_id", "shown_at")
FEEDBACK = (*IMPRESSION[:3], "feedback_id", "kind", "value", "occurred_at", "received_at")
_LENGTH_BYTES = 8


class LabelShares:
    """The impressions of one part of a day, and their feedback, in a folder that is removed at the end."""

    def __init__(self, folder: Path, count: int) -> None:
        """Spread over `count` shares."""
        self.folder, self.count = folder, count
        folder.mkdir()

    def add_impressions(self, rows: pl.DataFrame, places: pl.Series) -> None:
        """Add impressions and their places."""
        self._spread("impressions", rows.select(*IMPRESSION, places.alias(PLACE)))

    def add_feedback(
        self, pieces: Iterable[pl.DataFrame], tasks: Sequence[TaskSpec], as_of: datetime
    ) -> None:
        """Add feedback; what was received at `as_of` or later, or decides no label, is left out."""
        seen = (pl.col("received_at") < as_of) & may_label(tasks)
        for rows in pieces:
            self._spread("feedback", rows.select(FEEDBACK).filter(seen))

    def labels(self, tasks: Sequence[TaskSpec], as_of: datetime) -> Iterator[tuple[pl.Series, pl.DataFrame]]:
        """Give each share's places and labels, as `make_labels` does of all rows together."""
        for share in range(self.count):
            rows = self._read("impressions", share)
            if rows is not None:
                found = self._read("feedback", share)
                feedback = empty("feedback").select(FEEDBACK) if found is None else found
                yield rows[PLACE], make_labels(rows, feedback, tasks, as_of)[0]
        shutil.rmtree(self.folder)

    def _spread(self, table: str, rows: pl.DataFrame) -> None:
        share = (rows["user_id"].hash(seed=0) ^ rows["item_id"].hash(seed=1)) % self.count
        for (number,), own in rows.group_by(share.alias("share"), maintain_order=True):
            buffer = io.BytesIO()
            own.write_ipc_stream(buffer, compression="lz4")
            with self._file(table, int(str(number))).open("ab") as stream:
                stream.write(buffer.tell().to_bytes(_LENGTH_BYTES, "little"))
                stream.write(buffer.getbuffer())

    def _read(self, table: str, share: int) -> pl.DataFrame | None:
        """Read a share's rows in the order in which they came; None where none did."""
        file = self._file(table, share)
        if not file.is_file():
            return None
        with file.open("rb") as stream:
            return pl.concat(_frames(stream), how="diagonal_relaxed")

    def _file(self, table: str, share: int) -> Path:
        return self.folder / f"{table}-{share:05d}"


def _frames(stream: BinaryIO) -> Iterator[pl.DataFrame]:
    while length := stream.read(_LENGTH_BYTES):
        yield pl.read_ipc_stream(io.BytesIO(stream.read(int.from_bytes(length, "little"))))
