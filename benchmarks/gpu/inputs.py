"""The product model and its batches, as `recsys bench gpu-inputs` wrote them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from benchmarks.gpu.input_file import read_tensors
from benchmarks.speed.plain_shapes import PlainHead, PlainModel
from recsys.batch import Batch
from recsys.model.embeddings import LocalTables, TableSpec
from recsys.model.input_sizes import Inputs
from recsys.model.ranker import Ranker
from training.balancing.weights import Fixed
from training.trainer.batch_file import read_batch
from training.trainer.settings import FitSettings, read_every


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductInputs:
    """Everything that a fit of the product model, and the scoring of a request, need."""

    said: Mapping[str, Any]
    """Sizes, rates and names, as JSON values."""
    batches: Mapping[int, list[Batch]]
    """Batch size asked for -> training batches."""
    requests: list[Batch]
    """One user's inputs each."""
    catalogue: Batch
    """Its negatives are the items that candidates are drawn from."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file. Raises: InputError."""
        said, tensors = read_tensors(path)
        made: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            group, _, inner = name.partition("/")
            made.setdefault(group, {})[inner] = tensor
        batches: dict[int, list[Batch]] = {}
        for group, own in made.items():
            if group.startswith("batch-"):
                batches.setdefault(int(group.split("-")[1]), []).append(read_batch(own))
        return cls(
            said=said,
            batches=batches,
            requests=[read_batch(own) for group, own in made.items() if group.startswith("request-")],
            catalogue=read_batch(made["catalogue"]),
        )

    @property
    def heads(self) -> tuple[PlainHead, ...]:
        """Describe the heads."""
        return tuple(PlainHead.read(head) for head in self.said["heads"])

    def model(self, device: torch.device, seed: int = 0) -> tuple[Ranker, LocalTables]:
        """Build a model and its tables as a cold start begins with them, without dropout, on a device."""
        torch.manual_seed(seed)
        sizes: dict[str, Any] = {
            k: tuple(map(tuple, v)) if isinstance(v, list) else v for k, v in self.said["inputs"].items()
        }
        model = PlainModel.read({**self.said["model"], "dropout": 0.0})
        ranker = Ranker(Inputs(**sizes), self.heads, model)
        specs = tuple(TableSpec(**spec) for spec in self.said["tables"])
        tables = LocalTables(specs, self.said["sparse_learning_rate"], seed)
        return ranker.to(device), tables.to(device)

    def balancer(self) -> Fixed:
        """Weigh the losses as the config does."""
        return Fixed(self.said["weights"])

    def settings(self, precision: str, device: torch.device, steps: int) -> FitSettings:
        """Give the settings of a fit."""
        return FitSettings(
            **self.said["fit"], total_steps=steps, bf16=precision == "bf16", read_every=read_every(device)
        )
