"""The memory of fitting, encoding, streaming and scoring one day, by its rows; catalogue and users stay.

`python -m benchmarks.speed.training.data_memory --rows 2000000 --rows 20000000` writes a synthetic day of
each size. A process of its own fits the encoder on it, encodes it into files, makes every batch of an epoch,
scores each row by an untrained model and measures the heads; JSON out. Two figures count: anonymous memory,
which is the program's own, and file pages, which the system takes back when it must. The table of scored
rows, which measuring reads whole, is counted apart: `scored_bytes_per_row`.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import polars as pl
import torch

from benchmarks.speed.synthetic_columns import ids, instants
from features.days import Days
from features.encode import Encoder
from features.fit import FitFrames, fit_encoder
from features.history import VOID
from features.parts import window_names
from features.taken import TABLE as TAKEN
from recsys.bundle import Bundle, load_bundle
from recsys.calibration import Calibrator, Identity
from recsys.config import RunConfig, default_config
from recsys.encoding import EncoderState
from recsys.registry import Registry
from recsys.schema import INSTANT
from recsys.snapshot import ROW, DaySnapshot, part_folder
from recsys.source_terms import NO_SOURCES
from recsys.stages import MANIFEST, write_json
from training.build_model import build_model
from training.data import BatchStream, Cutting, EncodedDays, sizes_of
from training.evaluation.evaluate import find_audiences, heads_of, score_rows
from training.predict import BundlePredictor
from training.publish import write_bundle
from training.train import TrainedModel, make_batcher
from training.trainer.train_log import TrainLog

MEMORY_ROWS: Final = (2_000_000, 20_000_000)
USERS: Final = 100_000
ITEMS: Final = 20_000
EVENTS: Final = 20
"""Of each user's history."""
CATEGORIES: Final = 20
CLICK_SHARE: Final = 0.05
PAGE: Final = 10
"""Impressions of a request: the lists in which heads are measured."""
WRITTEN_AT_ONCE: Final = 250_000
"""A multiple of PAGE."""
DAYS: Final = (date(2026, 1, 5), date(2026, 1, 6))
SAMPLED_S: Final = 0.02
AUDIENCE: Final = 500
"""Users whose lists would be ranked, as a night does; ranking itself holds no rows of the day."""


def measure_memory(rows: int) -> dict[str, float]:
    """Write a day of so many rows, then encode and stream it in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as folder:
        own = [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--folder", folder]
        subprocess.run([*own, "--rows", str(rows), "--do", "write"], check=True)
        found: dict[str, float] = {}
        for part in PARTS:
            done = subprocess.run([*own, "--do", part], check=True, stdout=subprocess.PIPE, text=True)
            found |= json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Read the arguments and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, action="append", help="default 2000000 and 20000000")
    parser.add_argument("--do", choices=["write", *PARTS], help="one part; needs --folder")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.do == "write":
        write_days(args.folder, args.rows[0])
    elif args.do is not None:
        print(json.dumps(PARTS[args.do](args.folder)), flush=True)
    else:
        sizes = args.rows or MEMORY_ROWS
        print(json.dumps({str(rows): measure_memory(rows) for rows in sizes}, indent=1))


def memory_config() -> RunConfig:
    """Give the default config without item text: its model is not of this bench."""
    config = default_config()
    return config.model_copy(update={"features": config.features.model_copy(update={"text_dim": 0})})


def fitted(folder: Path) -> tuple[RunConfig, Days, EncoderState, dict[str, float]]:
    """Fit the encoder on the second day; give what that took, too."""
    config = memory_config()
    days = Days.of([DaySnapshot(day, folder / str(day)) for day in DAYS], config)
    began = time.perf_counter()
    with MemoryPeaks() as fitting:
        state = fit_encoder(config, FitFrames.read(days[1], [days[1]], config, days[0]), None, seed=0)
    seconds = time.perf_counter() - began
    figures = {
        "fit_before_mb": fitting.began_mb,
        "fit_anonymous_mb": fitting.anonymous_mb,
        "fit_files_mb": fitting.files_mb,
        "fit_s": seconds,
    }
    return config, days, state, figures


def score_day(folder: Path) -> dict[str, float]:
    """Score the second day by an untrained model and measure the heads; give peaks in MB and seconds."""
    config, days, state, _ = fitted(folder)
    torch.set_num_threads(config.training.threads)
    ranker, tables = build_model(config, state)
    model = TrainedModel(ranker=ranker, tables=tables, state=state, log=TrainLog())
    predictor = BundlePredictor(_bundle(model, config, days[1], folder))
    evaluated = {task.name: [1] for task in config.tasks}
    began = time.perf_counter()
    with MemoryPeaks() as scoring:
        rows = score_rows(predictor, days, evaluated)
    scored_s = time.perf_counter() - began
    with MemoryPeaks() as measuring:
        heads_of(rows, config.tasks)
        find_audiences(config, days, evaluated, max_users=AUDIENCE, seed=0)
    return {
        "scored_bytes_per_row": rows.estimated_size() / max(rows.height, 1),
        "score_before_mb": scoring.began_mb,
        "score_anonymous_mb": scoring.anonymous_mb,
        "score_files_mb": scoring.files_mb,
        "score_s": scored_s,
        "measure_anonymous_mb": measuring.anonymous_mb,
        "measure_files_mb": measuring.files_mb,
    }


def _bundle(model: TrainedModel, config: RunConfig, snapshot: DaySnapshot, folder: Path) -> Bundle:
    """Write a bundle of the model, as a night does."""
    registry = Registry(folder / "runs")
    calibration: dict[str, Calibrator] = {task.name: Identity() for task in config.tasks}
    version = write_bundle(
        registry, model, calibration, config, snapshot, None, refitted=False, sources=NO_SOURCES
    )
    return load_bundle(registry.require(version))


def stream_day(folder: Path) -> dict[str, float]:
    """Fit on and encode the second day, make an epoch of its batches; give peaks in MB and seconds."""
    config, days, state, figures = fitted(folder)
    last = days[1]
    encoder = Encoder.from_config(config, state)
    batcher = make_batcher(encoder, last.table("items"), config, config.tasks)
    read = EncodedDays(
        folder=folder / "encoded", encoder=encoder, days=days, tasks=config.tasks, hidden=lambda _: (),
        piece_rows=config.training.chunk_rows,
    )  # fmt: skip
    stream = BatchStream(
        days=sizes_of(days, [1]), read_day=read, batcher=batcher, cutting=Cutting.from_config(config)
    )
    began = time.perf_counter()
    with MemoryPeaks() as encoding:
        read(1)
    encoded_s = time.perf_counter() - began
    with MemoryPeaks() as streaming:
        rows = sum(batch.size for batch in stream.batches())
    streamed_s = time.perf_counter() - began - encoded_s
    return figures | {
        "rows": rows,
        "before_mb": encoding.began_mb,
        "encode_anonymous_mb": encoding.anonymous_mb,
        "encode_files_mb": encoding.files_mb,
        "stream_anonymous_mb": streaming.anonymous_mb,
        "stream_files_mb": streaming.files_mb,
        "encoded_bytes_per_row": sum(f.stat().st_size for f in folder.glob("encoded/*/*")) / rows,
        "encode_s": encoded_s,
        "stream_s": streamed_s,
    }


class MemoryPeaks:
    """The largest anonymous memory and file pages of this process while a block runs, sampled (Linux)."""

    def __init__(self) -> None:
        self.anonymous_mb = self.files_mb = self.began_mb = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self.began_mb = _resident_mb()[0]
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            anonymous, files = _resident_mb()
            self.anonymous_mb = max(self.anonymous_mb, anonymous)
            self.files_mb = max(self.files_mb, files)
            if self._over.wait(SAMPLED_S):
                return


def _resident_mb() -> tuple[float, float]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024, int(status["RssFile"].split()[0]) / 1024


def write_days(folder: Path, rows: int) -> None:
    """Write the snapshot of a day without rows and of one with so many; what they share is equal."""
    config, rng = memory_config(), np.random.default_rng(0)
    for day, num_rows in zip(DAYS, (0, rows), strict=True):
        own = part_folder(folder / str(day), 0)
        own.mkdir(parents=True)
        _write_entities(folder / str(day), own, config, rng)
        for name, make in (("examples", _examples), ("feedback", _feedback)):
            pieces = (make(day, at, np.random.default_rng([1, *at])) for at in _pieces(num_rows))
            _write_pieces(own / f"{name}.parquet", pieces)
        write_json(
            folder / str(day) / MANIFEST, {"day": str(day), "parts": 1, "rows": {"impressions": num_rows}}
        )


def _pieces(rows: int) -> list[tuple[int, int]]:
    return [(a, min(a + WRITTEN_AT_ONCE, rows)) for a in range(0, max(rows, 1), WRITTEN_AT_ONCE)]


def _write_pieces(path: Path, pieces: Iterable[pl.DataFrame]) -> None:
    """Write a table piece by piece: twenty million rows need not be in memory to be written."""
    parts = path.with_suffix(".parts")
    parts.mkdir()
    for number, frame in enumerate(pieces):
        frame.write_parquet(parts / f"{number:04d}.parquet", compression_level=1)
    pl.scan_parquet(parts / "*.parquet").sink_parquet(path, compression_level=1)
    shutil.rmtree(parts)


def _examples(day: date, piece: tuple[int, int], rng: np.random.Generator) -> pl.DataFrame:
    """Give the day's impressions of a range of rows, which begins with a request of ten.

    Users' histories lie in the order of their numbers.
    """
    row = np.arange(*piece)
    request = (row - piece[0]) // PAGE
    num_requests = -(-row.size // PAGE)
    user = rng.integers(0, USERS, num_requests)[request]
    start = user.astype(np.uint32) * EVENTS
    return pl.DataFrame(
        {
            "impression_id": ids("m", row),
            "request_id": ids("r", row // PAGE),
            "user_id": ids("u", user),
            "item_id": ids("i", (ITEMS * rng.random(row.size) ** 3).astype(np.int64)),
            "shown_at": instants(day, num_requests, rng)[request],
            "position": (row % PAGE + 1).astype(np.int32),
            "propensity": pl.repeat(None, row.size, dtype=pl.Float64, eager=True),
            "propensity_kind": pl.repeat("unknown", row.size, eager=True),
            "explored": np.zeros(row.size, bool),
            "sampling_rate": np.ones(row.size),
            "sampled": np.zeros(row.size, bool),
            "context_device": ids("d", rng.integers(0, 3, row.size)),
            ROW: row,
            "history_start": start,
            "history_stop": start + EVENTS,
        }
    )


def _feedback(day: date, piece: tuple[int, int], rng: np.random.Generator) -> pl.DataFrame:
    """Give clicks on a share of what `_examples` shows, whose users and items it draws alike."""
    shown = _examples(day, piece, rng)
    chosen = shown.filter(pl.Series(rng.random(shown.height) < CLICK_SHARE))
    return chosen.select(
        pl.concat_str(pl.lit("f"), pl.col("impression_id")).alias("feedback_id"),
        "impression_id", "user_id", "item_id",
        kind=pl.lit("click"), value=pl.lit(None, pl.Float64),
        occurred_at=pl.col("shown_at"), received_at=pl.col("shown_at"),
    )  # fmt: skip


def _write_entities(snapshot: Path, part: Path, config: RunConfig, rng: np.random.Generator) -> None:
    names = window_names(config)
    user, item = ids("u", np.arange(USERS)), ids("i", np.arange(ITEMS))
    counts = {name: rng.integers(0, 50, USERS) for name in names}
    users = pl.DataFrame({"user_id": user, **counts, "hours_since_feedback": rng.integers(0, 99, USERS)})
    users = users.with_columns(instants(DAYS[0] - timedelta(days=9), USERS, rng).alias("last_feedback_at"))
    users = users.with_columns(
        pl.Series(f.column, ids("a", rng.integers(0, 30, USERS)))
        for f in config.attributes
        if f.entity == "user"
    )
    category = ids("k", rng.integers(0, CATEGORIES, ITEMS))
    items = pl.DataFrame({"item_id": item, "category": category, "price": rng.integers(1, 9_999, ITEMS)})
    items = items.with_columns(
        *(pl.Series(name, rng.integers(0, 500, ITEMS)) for name in names),
        pl.lit(None, INSTANT).alias("available_from"),
        pl.lit(None, INSTANT).alias("available_until"),
    )
    events = pl.DataFrame(
        {
            "user_id": ids("u", np.repeat(np.arange(USERS), EVENTS)),
            "feedback_id": ids("e", np.arange(USERS * EVENTS)),
            "item_id": ids("i", rng.integers(0, ITEMS, USERS * EVENTS)),
            "kind": ["click"] * (USERS * EVENTS),
            "value": pl.Series([None] * (USERS * EVENTS), dtype=pl.Float64),
            "received_at": instants(DAYS[0] - timedelta(days=9), USERS * EVENTS, rng),
            VOID: pl.Series([None] * (USERS * EVENTS), dtype=pl.Datetime("ms", "UTC")),
        }
    )
    users.write_parquet(part / "users.parquet")
    crosses = users.select("user_id", pl.lit("k1").alias("category"), *names, "hours_since_feedback")
    crosses.write_parquet(part / "cross_category.parquet")
    events.write_parquet(part / "events.parquet")
    events.write_parquet(part / "tail.parquet")
    events.write_parquet(part / f"{TAKEN}.parquet")
    events.select("user_id", "kind", "item_id").clear().write_parquet(part / "seen.parquet")
    items.write_parquet(snapshot / "items.parquet")
    items.clear().write_parquet(snapshot / "new_items.parquet")


PARTS: Final = {"stream": stream_day, "score": score_day}
"""Each in a process of its own."""

if __name__ == "__main__":
    main()
