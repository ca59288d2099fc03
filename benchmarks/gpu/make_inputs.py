"""`recsys bench gpu-inputs FILE`: cut batches of the product model and write them with all that builds it."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.commit import commit
from benchmarks.gpu.input_file import write_tensors
from benchmarks.speed.plain_shapes import PlainHead, PlainModel
from benchmarks.speed.shop_days import last_days, shop_log
from features.days import Days
from features.encode import Encoder
from recsys.batch import Batch
from recsys.config import RunConfig
from recsys.encoding import EncoderState
from recsys.errors import ConfigError
from training.build_model import inputs_json, ranker_inputs, table_specs
from training.data import Batcher, encode_day, text_by_number
from training.fit_inputs import batch_settings, loss_weights
from training.predict import scoring_settings
from training.train import fit_settings, fit_state, retrieval_popularity
from training.trainer.batch_file import batch_tensors

BATCHES = {2048: 8, 8192: 4, 65_536: 2}
"""Batch size -> how many are kept; a fit goes through them again and again."""
REQUESTS = 64
CATALOGUE = 2_000
"""Items drawn from the catalogue, of which a request's candidates are."""
MAX_BYTES = 40_000_000


def make_inputs(
    path: Path,
    config: RunConfig,
    log: Path | None,
    seed: int,
    batches: dict[int, int] = BATCHES,
    max_bytes: int = MAX_BYTES,
) -> dict[str, Any]:
    """Write the file; give what it holds.

    Args: log: None: six days of the simulated shop are written first, from the seed.
    Raises: ConfigError without a folder to write into or a task whose positives are retrieved, and when the
    file is too large.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}; make it, or choose another file")
    with shop_log(seed, log) as (own, stages):
        days = last_days(own, config, stages)
        said, tensors = product_inputs(days, config, seed, batches)
    temporary = path.with_name(f".{path.name}.tmp")
    write_tensors(temporary, said, tensors)
    size = temporary.stat().st_size
    if size > max_bytes:
        temporary.unlink()
        raise ConfigError(
            f"the inputs take {size:,} bytes, more than the {max_bytes:,} that are carried to a machine; "
            "take a config with fewer or narrower features"
        )
    temporary.replace(path)
    return {"file": str(path), "bytes": size, "commit": said["commit"], "rows": said["rows"]}


def product_inputs(
    days: Days, config: RunConfig, seed: int, batches: dict[int, int]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Give the values that build the product model, and the tensors of its batches, requests and items."""
    if config.retrieval_task is None or not config.retrieval.weight:
        raise ConfigError(
            "[retrieval]: the bench needs a task whose positives are retrieved, of weight above 0"
        )
    state = fit_state(days, [days.last], config, None)
    cutter = _Cutter(days, config, state, seed)
    cut = {
        f"batch-{size}-{n}": batch
        for size, num in batches.items()
        for n, batch in enumerate(cutter.training(size, num))
    }
    rows = {name: batch.size for name, batch in cut.items()}
    cut |= {f"request-{n}": batch for n, batch in enumerate(cutter.requests(REQUESTS))}
    cut["catalogue"] = cutter.catalogue(CATALOGUE)
    tensors = {f"{name}/{key}": t for name, batch in cut.items() for key, t in batch_tensors(batch).items()}
    settings = asdict(fit_settings(config, 1, warm=False))
    kept = ("learning_rate", "weight_decay", "retrieval_task", "temperature")
    said = {
        "commit": commit(),
        "seed": seed,
        "rows": rows,
        "inputs": inputs_json(ranker_inputs(config, state)),
        "tables": [asdict(spec) for spec in table_specs(config, state)],
        "heads": [asdict(PlainHead.of(task)) for task in config.tasks],
        "model": PlainModel.of(config.model).as_json(),
        "weights": loss_weights(config, config.tasks),
        "sparse_learning_rate": config.training.sparse_learning_rate,
        "fit": {key: settings[key] for key in kept},
    }
    return said, tensors


class _Cutter:
    """Cuts batches from the last days."""

    def __init__(self, days: Days, config: RunConfig, state: EncoderState, seed: int) -> None:
        self.days, self.config = days, config
        self.encoder = Encoder.from_config(config, state)
        self.text = text_by_number(self.encoder, days[-1].table("items"))
        self.share = retrieval_popularity(days, [days.last], config, state)
        self.random = np.random.default_rng(seed)

    def training(self, size: int, num: int) -> Iterator[Batch]:
        """Cut up to so many batches, of the newest day first."""
        settings = replace(batch_settings(self.config, self.config.tasks), batch_size=size)
        batcher = Batcher(self.encoder, self.text, settings)
        for i in range(self.days.last, -1, -1):
            encoded = encode_day(self.encoder, self.days, i, self.config.tasks)
            order = self.random.permutation(encoded.size)
            share = self.share[encoded.items.ids[:, 0]]
            for rows in np.array_split(order, -(-order.size // size)) if order.size else ():
                yield batcher.batch(encoded, rows, self.random, share)
                num -= 1
                if num == 0:
                    return

    def requests(self, num: int) -> Iterator[Batch]:
        """Cut one example each, as a request reads its user."""
        batcher = Batcher(self.encoder, self.text, scoring_settings(self.config))
        encoded = encode_day(self.encoder, self.days, self.days.last, self.config.tasks)
        for row in self.random.integers(0, encoded.size, num):
            yield batcher.batch(encoded, np.array([row]), self.random)

    def catalogue(self, num: int) -> Batch:
        """Cut one example with so many items as its negatives."""
        settings = replace(batch_settings(self.config, self.config.tasks), num_uniform=num)
        encoded = encode_day(self.encoder, self.days, self.days.last, self.config.tasks)
        share = self.share[encoded.items.ids[:, 0]]
        return Batcher(self.encoder, self.text, settings).batch(encoded, np.array([0]), self.random, share)


def parse_batches(text: str) -> dict[int, int]:
    """Read "2048:8,8192:4": batch size and number of batches. Raises: ConfigError."""
    try:
        found = {int(size): int(num) for size, num in (part.split(":") for part in text.split(","))}
    except ValueError:
        raise ConfigError(f"{text!r} is no list of SIZE:NUMBER, like 2048:8,8192:4") from None
    if not all(size > 0 and num > 0 for size, num in found.items()):
        raise ConfigError(f"{text!r}: sizes and numbers must be above 0")
    return found
