"""Canonical weights of a ranker and its tables: `ranker.*`, `table.<name>.weight`, `table.<name>.state`."""

from collections.abc import Mapping

import numpy as np
import torch

from recsys.model.embeddings import Tables
from recsys.model.ranker import Ranker


def canonical(ranker: Ranker, tables: Tables) -> dict[str, np.ndarray]:
    """Give all weights by name; where ranks share the tables, every rank calls this and rank 0 has them."""
    found = {f"ranker.{k}": v.detach().numpy().copy() for k, v in ranker.state_dict().items()}
    return found | {f"table.{k}": v.numpy() for k, v in tables.export().items()}


def table_weights(weights: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Give the tables' part as `LocalTables.load` takes it."""
    return {
        k.removeprefix("table."): torch.from_numpy(v) for k, v in weights.items() if k.startswith("table.")
    }


def load_canonical(ranker: Ranker, tables: Tables, weights: Mapping[str, np.ndarray]) -> None:
    """Load all weights of a ranker; tables keep the initial values of rows that are not given."""
    load_ranker(ranker, weights)
    tables.load(table_weights(weights))


def load_ranker(ranker: Ranker, weights: Mapping[str, np.ndarray]) -> None:
    """Load all weights of a ranker."""
    ranker.load_state_dict({k: torch.from_numpy(weights[f"ranker.{k}"]) for k in ranker.state_dict()})
