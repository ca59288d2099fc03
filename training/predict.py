"""A frozen bundle on later periods: predictions per row, and ranked lists over the whole catalogue."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import torch

from features.days import Days
from features.encode import Encoder
from recsys.bundle import Bundle
from recsys.calibration import Calibrator
from recsys.config import RunConfig, build_fusion
from recsys.device import CPU, resolve_device
from recsys.fusion import Fusion
from recsys.item_bias import no_item_bias
from recsys.item_terms import item_terms
from recsys.model.embeddings import LocalTables, TableSpec
from recsys.model.ranker import Ranker
from recsys.model.scorer import calibrate, ranker_from
from recsys.shapes import reads_sequences
from recsys.tasks import TaskSpec
from training.data import (
    Batcher,
    BatchSettings,
    EncodedDay,
    EncodedRows,
    ScoredRows,
    encode_day,
    opened_day,
    scoring_batches,
    text_by_number,
)
from training.table_placement import tables_for_host
from training.train import TrainedModel
from training.trainer.logits import predict_cosines, predict_logits
from training.trainer.weights import table_weights

BATCH_SIZE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ListModel:
    """What makes ranked lists: weights, and all that makes a score of them; in a bundle or not yet."""

    config: RunConfig
    ranker: Ranker
    tables: LocalTables
    encoder: Encoder
    batcher: Batcher
    calibration: Mapping[str, Calibrator]
    fusion: Fusion
    item_bias: pl.DataFrame = field(default_factory=no_item_bias)
    """What the heads miss of items, as `recsys.item_bias` says."""

    @classmethod
    def of(
        cls,
        trained: TrainedModel,
        calibration: Mapping[str, Calibrator],
        config: RunConfig,
        items: pl.DataFrame,
        item_bias: pl.DataFrame | None = None,
    ) -> "ListModel":
        """Take weights that are in no bundle yet, with the score that the config says."""
        encoder = Encoder.from_config(config, trained.state)
        ranker, tables = moved(trained.ranker, trained.tables, resolve_device(config.training.device))
        return cls(
            config=config,
            ranker=ranker.with_item_terms(item_terms(calibration)),
            tables=tables,
            encoder=encoder,
            batcher=Batcher(encoder, text_by_number(encoder, items), scoring_settings(config)),
            calibration=calibration,
            fusion=build_fusion(config.tasks, config.fusion),
            item_bias=no_item_bias() if item_bias is None else item_bias,
        )

    def calibrated(self, logits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Convert raw logits to predictions."""
        return calibrate(logits, self.config.tasks, dict(self.calibration))


class BundlePredictor:
    """Scores encoded rows with a bundle's weights; the caller rolls the features forward."""

    def __init__(self, bundle: Bundle, device: torch.device = CPU) -> None:
        """Build model and encoder once. Args: device: where rows are scored and lists ranked."""
        self.bundle = bundle
        weights = table_weights(bundle.weights)
        specs = tuple(
            TableSpec(name=k.removesuffix(".weight"), size=v.shape[0], dim=v.shape[1])
            for k, v in weights.items()
            if k.endswith(".weight")
        )
        self.ranker = ranker_from(self.bundle.manifest.inputs, self.bundle).to(device)
        self.tables = LocalTables(specs, learning_rate=0.0, seed=None)
        self.tables.load(weights)
        self.tables.to(device, tables_for_host(specs, device))
        self.encoder = Encoder.from_config(self.bundle.config, self.bundle.encoder)
        self.batcher = Batcher(
            self.encoder,
            text_by_number(self.encoder, self.bundle.items),
            scoring_settings(self.bundle.config),
        )

    @property
    def lists(self) -> ListModel:
        """Give what makes ranked lists."""
        return ListModel(
            config=self.bundle.config,
            ranker=self.ranker,
            tables=self.tables,
            encoder=self.encoder,
            batcher=self.batcher,
            calibration=self.bundle.manifest.calibration,
            fusion=self.bundle.manifest.fusion,
            item_bias=self.bundle.item_bias,
        )

    def encode_day(self, days: Days, i: int, tasks: Sequence[TaskSpec]) -> EncodedRows:
        """Encode day i with this bundle's own vocabulary and statistics, with the labels of the days."""
        return encode_day(self.encoder, days, i, tasks)

    def opened_day(
        self, days: Days, i: int, folder: Path | None = None
    ) -> AbstractContextManager[EncodedDay]:
        """Encode day i for scoring, with the labels of the days; in files where it is large."""
        return opened_day(self.encoder, days, i, self.bundle.config.tasks, folder)

    def logits(self, encoded: EncodedDay) -> dict[str, np.ndarray]:
        """Give raw logits float32 per task, [N] or (ordinal) [N, C]."""
        return predict_logits(self.ranker, self.tables, scoring_batches(self.batcher, encoded))

    def cosines(self, encoded: EncodedDay) -> np.ndarray:
        """Give the cosine of user and item, float32 [N]."""
        return predict_cosines(self.ranker, self.tables, scoring_batches(self.batcher, encoded))

    def predictions(self, encoded: EncodedDay) -> dict[str, np.ndarray]:
        """Give calibrated predictions float32 [N] per task."""
        return calibrate(self.logits(encoded), self.bundle.config.tasks, self.bundle.manifest.calibration)


def scoring_settings(config: RunConfig) -> BatchSettings:
    """Cut large batches in order, without anything that only training does."""
    return BatchSettings(
        batch_size=BATCH_SIZE,
        history_length=config.features.history_length,
        lag_ms=1000 * config.features.ingestion_lag,
        sequences=reads_sequences(config.model.history),
    )


def day_logits(
    trained: TrainedModel, days: Days, i: int, config: RunConfig, folder: Path | None = None
) -> tuple[dict[str, np.ndarray], ScoredRows]:
    """Score one day with weights that are not in a bundle yet.

    Args: folder: where a large day is encoded; default: beside its snapshot.
    """
    encoder = Encoder.from_config(config, trained.state)
    batcher = Batcher(encoder, text_by_number(encoder, days[i].table("items")), scoring_settings(config))
    scoring = moved(trained.ranker, trained.tables, resolve_device(config.training.device))
    with opened_day(encoder, days.labelled_for(config.tasks), i, config.tasks, folder) as day:
        return predict_logits(*scoring, scoring_batches(batcher, day)), ScoredRows.of(day, encoder)


def moved(ranker: Ranker, tables: LocalTables, device: torch.device) -> tuple[Ranker, LocalTables]:
    """Give ranker and tables on a device: copies, or themselves where they are there already."""
    if tables.device == device:
        return ranker, tables
    in_host = tables_for_host(tables.specs.values(), device)
    return copy.deepcopy(ranker).to(device), copy.copy(tables).to(device, in_host)
