"""The model without a bundle: popular items, counted from the log at the start and with each day it gets."""

from collections.abc import Sequence

import polars as pl

from recsys.config import RunConfig, build_fusion
from recsys.log import InteractionLog, latest_by_key
from recsys.schema import empty
from serving.catalogue import Catalogue
from serving.catalogue.popular import Popular
from serving.served_model import ServedModel

# Popularity counts the feedback of this many latest partitions.
_NUM_DAYS = 28


def popular_model(log: InteractionLog, config: RunConfig) -> ServedModel:
    """Build a model without scorer: the catalogue, and how often each item got positive feedback.

    Raises: DataError when the log cannot be read.
    """
    items, counts = _items(log), _counts(log, config)
    unlisted = counts.select("item_id").join(items.select("item_id"), on="item_id", how="anti")
    catalogue = pl.concat([items, unlisted], how="diagonal_relaxed").sort("item_id")
    most = counts["count"].max() if counts.height else 1
    return _model(config, catalogue, counts["item_id"].to_list(), (counts["count"] / most).to_list())


def empty_model(config: RunConfig) -> ServedModel:
    """Build an empty model: the server has it until a bundle or the popular items are loaded."""
    return _model(config, empty("items"), [], [])


def _model(
    config: RunConfig, items: pl.DataFrame, popular: Sequence[str], scores: Sequence[float]
) -> ServedModel:
    catalogue = Catalogue.from_frame(items)
    return ServedModel(
        version=None,
        catalogue=catalogue,
        popular=Popular.of(catalogue, popular, scores),
        tasks=config.tasks,
        fusion=build_fusion(config.tasks, config.fusion),
    )


def _items(log: InteractionLog) -> pl.DataFrame:
    frames = [log.read("items", day) for day in log.days("items")]
    return latest_by_key(frames, "item_id") if frames else empty("items")


def _counts(log: InteractionLog, config: RunConfig) -> pl.DataFrame:
    """Count positive feedback by item: (item_id, count), highest first, ties by id."""
    kinds = [task.feedback for task in config.tasks if task.kind.label == "event"]
    frames = [
        log.read("feedback", day)
        .filter(pl.col("kind").is_in(kinds), pl.col("merged_from").is_null())
        .select("item_id")
        for day in log.days("feedback")[-_NUM_DAYS:]
    ]
    events = pl.concat(frames) if frames else empty("feedback").select("item_id")
    return (
        events.group_by("item_id")
        .agg(pl.len().alias("count"))
        .sort(["count", "item_id"], descending=[True, False])
    )
