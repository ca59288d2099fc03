"""A scorer of random weights with the simulated shop's features, and a request for it.

Legend: I items, L events of a history, N candidates.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import polars as pl
import torch

from features.definitions import define_features
from recsys.calibration import Affine, Platt
from recsys.config import RunConfig, default_config
from recsys.encoding import EncoderState
from recsys.inputs import ContextInputs, CrossInputs, ItemInputs, UserInputs
from recsys.model.scorer import Scorer
from recsys.source_terms import SourceTerms
from recsys.vocabulary import Vocabulary
from training.build_model import build_ranker, inputs_json, table_specs

CATEGORIES: Final = 200
KNOWN_CATEGORIES: Final = 20
"""Categories that the user has aggregates of."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a scorer is asked."""

    user: UserInputs
    context: ContextInputs
    rows: np.ndarray


def shop_of(experts: int, embedding_dim: int) -> RunConfig:
    """Give the shop's config with a trunk of so many experts, and histories of 50."""
    config = default_config()
    trunk = config.model.trunk.model_copy(update={"num_experts": experts})
    model = config.model.model_copy(update={"trunk": trunk, "embedding_dim": embedding_dim})
    features = config.features.model_copy(update={"history_length": 50})
    return config.model_copy(update={"model": model, "features": features})


def random_scorer(config: RunConfig, items: int, seed: int = 0) -> Scorer:
    """Build a scorer of so many items."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    names = sorted({f.vocabulary for f in define_features(config).looked_up})
    sizes = {name: items if name == "item_id" else CATEGORIES for name in names}
    vocabularies = {
        n: Vocabulary(ids=tuple(map(str, range(size))), hash_buckets=0) for n, size in sizes.items()
    }
    state = EncoderState(vocabularies=vocabularies, numbers={})
    ranker = build_ranker(config, state)
    weights = {f"ranker.{name}": value.numpy() for name, value in ranker.state_dict().items()}
    for spec in table_specs(config, state):
        weights[f"table.{spec.name}.weight"] = rng.normal(0, 0.5, (spec.size, spec.dim)).astype(np.float32)
    bundle: Any = SimpleNamespace(
        path="random",
        config=config,
        item_item=None,
        manifest=SimpleNamespace(
            fusion=SimpleNamespace(sources=SourceTerms()),
            inputs=inputs_json(ranker.inputs),
            calibration={
                "click": Platt(a=1.0, b=-2.5),
                "purchase": Platt(a=1.0, b=-4.0),
                "rating": Affine(scale=1.0, offset=0.0, low=1.0, high=5.0),
            },
        ),
        weights=weights,
        encoder=state,
        items=pl.DataFrame({"item_id": [str(n) for n in range(items)]}),
    )
    return Scorer(bundle, _items(config, items, rng))


def random_request(scorer: Scorer, candidates: int, seed: int = 0) -> Request:
    """Draw a user with 50 events, a context, and candidates."""
    rng, features = np.random.default_rng(seed), define_features(scorer.bundle.config)
    length = scorer.bundle.config.features.history_length
    num_items = len(scorer.item_embeddings)
    crosses = tuple(
        CrossInputs(
            tuple(f"category {n}" for n in range(KNOWN_CATEGORIES)),
            _numbers(rng, KNOWN_CATEGORIES + 1, sum(f.width for f in cross.numbers)),
        )
        for cross in features.crosses
    )
    return Request(
        UserInputs(
            ids=rng.integers(1, CATEGORIES, len(features.ids_of("user"))),
            numbers=_numbers(rng, 1, features.width_of("user"))[0],
            history_items=rng.integers(1, num_items, length),
            history_kinds=rng.integers(1, scorer.ranker.inputs.num_history_kinds + 1, length),
            history_ages=rng.integers(0, 20, length),
            history_minutes=np.sort(rng.integers(0, 100_000, length))[::-1].copy(),
            crosses=crosses,
        ),
        ContextInputs(
            ids=rng.integers(1, CATEGORIES, len(features.ids_of("context"))),
            numbers=_numbers(rng, 1, features.width_of("context"))[0],
        ),
        rng.choice(num_items, candidates, replace=False),
    )


def _items(config: RunConfig, items: int, rng: np.random.Generator) -> ItemInputs:
    features = define_features(config)
    category = rng.integers(0, CATEGORIES, items)
    ids = [np.arange(items) + 1 if f.name == "item_id" else category + 1 for f in features.ids_of("item")]
    return ItemInputs(
        ids=np.stack(ids, axis=1),
        numbers=_numbers(rng, items, features.width_of("item")),
        text=_numbers(rng, items, config.features.text_dim),
        groups=tuple([f"category {n}" for n in category.tolist()] for _ in features.crosses),
    )


def _numbers(rng: np.random.Generator, rows: int, width: int) -> np.ndarray:
    return rng.standard_normal((rows, width), np.float32)
