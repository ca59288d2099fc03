"""Train a peer's own MMoE for one epoch, as its documentation does, on the arrays of the click log.

It runs in the peers' environment, which has none of our packages: it imports nothing of ours. Adam at 1e-3,
no dropout, and no penalty on weights, which both peers add by default: on these rows it costs them speed and
AUC. deepctr-torch's gates are linear, as torch-rechub's are.

A run that is scored is not timed: it gets its batches cut at once (`WholeBatches`) instead of row by row, as
both peers cut them. The batches are of the same kind, and a long epoch takes two thirds of the time.
"""

import argparse
import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

EXPERTS, EXPERT_UNITS, TOWER_UNITS, DIM = 8, (256, 128), (64,), 16
Columns = dict[str, np.ndarray]


class Peer(Protocol):
    """One package's MMoE."""

    package: str
    module: str
    """Imported before the clock starts."""

    def build(self, sizes: Sequence[int], num_numbers: int, tasks: Sequence[str]) -> None:
        """Build the model and what trains it."""

    def train(self, columns: Columns, labels: np.ndarray, batch_size: int, timed: bool) -> None:
        """Make one pass. Args: timed: with the peer's own loader."""

    def score(self, columns: Columns) -> np.ndarray:
        """Give [N, K] probabilities."""


class WholeBatches:
    """Stands for torch's DataLoader: shuffled batches of a TensorDataset, each cut with one index."""

    def __init__(self, dataset: Any, batch_size: int, shuffle: bool = False) -> None:
        self.tensors, self.batch_size, self.shuffle = dataset.tensors, batch_size, shuffle

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        num = len(self.tensors[0])
        order = torch.randperm(num) if self.shuffle else torch.arange(num)
        for rows in torch.split(order, self.batch_size):
            yield [tensor[rows] for tensor in self.tensors]


class RecHub:
    """torch-rechub: a dictionary of columns, `DataGenerator`, `MTLTrainer`."""

    package = "torch-rechub"
    module = "torch_rechub.trainers"

    def build(self, sizes: Sequence[int], num_numbers: int, tasks: Sequence[str]) -> None:
        from torch_rechub.basic.features import DenseFeature, SparseFeature
        from torch_rechub.models.multi_task import MMOE
        from torch_rechub.trainers import MTLTrainer

        features = [DenseFeature(f"n{f}") for f in range(num_numbers)]
        features += [SparseFeature(f"c{c}", vocab_size=size, embed_dim=DIM) for c, size in enumerate(sizes)]
        kinds = ["classification"] * len(tasks)
        towers = [{"dims": list(TOWER_UNITS)} for _ in tasks]
        model = MMOE(features, kinds, EXPERTS, {"dims": list(EXPERT_UNITS)}, towers)
        self.trainer = MTLTrainer(model, kinds, optimizer_params={"lr": 1e-3}, n_epoch=1)

    def train(self, columns: Columns, labels: np.ndarray, batch_size: int, timed: bool) -> None:
        from torch.utils.data import TensorDataset
        from torch_rechub.utils.data import DataGenerator

        if not timed:
            whole = TensorDataset(*map(torch.from_numpy, (*columns.values(), labels)))
            batches = WholeBatches(whole, batch_size, shuffle=True)
            self.trainer.train_one_epoch((dict(zip(columns, b, strict=False)), b[-1]) for b in batches)
            return
        one = {name: values[:1] for name, values in columns.items()}
        made = DataGenerator(columns, labels).generate_dataloader(
            x_val=one, y_val=labels[:1], x_test=one, y_test=labels[:1], batch_size=batch_size
        )
        self.trainer.train_one_epoch(made[0])

    def score(self, columns: Columns) -> np.ndarray:
        from torch.utils.data import DataLoader
        from torch_rechub.utils.data import PredictDataset

        loader = DataLoader(PredictDataset(columns), batch_size=8192)
        return np.asarray(self.trainer.predict(self.trainer.model, loader))


class DeepCTR:
    """deepctr-torch: a list of columns, `compile` and `fit`."""

    package = "deepctr-torch"
    module = "deepctr_torch.models"

    def build(self, sizes: Sequence[int], num_numbers: int, tasks: Sequence[str]) -> None:
        from deepctr_torch.inputs import DenseFeat, SparseFeat
        from deepctr_torch.models import MMOE

        features = [SparseFeat(f"c{c}", size, embedding_dim=DIM) for c, size in enumerate(sizes)]
        features += [DenseFeat(f"n{f}", 1) for f in range(num_numbers)]
        self.model = MMOE(
            features,
            num_experts=EXPERTS,
            expert_dnn_hidden_units=EXPERT_UNITS,
            gate_dnn_hidden_units=(),
            tower_dnn_hidden_units=TOWER_UNITS,
            l2_reg_linear=0,
            l2_reg_embedding=0,
            seed=torch.initial_seed(),
            task_types=["binary"] * len(tasks),
            task_names=list(tasks),
        )
        self.model.compile("adam", loss=["binary_crossentropy"] * len(tasks))

    def train(self, columns: Columns, labels: np.ndarray, batch_size: int, timed: bool) -> None:
        if not timed:
            vars(import_module("deepctr_torch.models.basemodel"))["DataLoader"] = WholeBatches
        self.model.fit(columns, labels, batch_size=batch_size, epochs=1, verbose=0)

    def score(self, columns: Columns) -> np.ndarray:
        return np.asarray(self.model.predict(columns, batch_size=8192))


PEERS: dict[str, Callable[[], Peer]] = {"torch-rechub": RecHub, "deepctr-torch": DeepCTR}


def main() -> None:
    """Read the arguments, train, write the test rows' scores, and print one line of JSON."""
    parser = argparse.ArgumentParser(description="Train a peer for one epoch")
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--arrays", type=Path, required=True)
    parser.add_argument("--sizes", required=True, help="distinct ids of each column: 100,20,…")
    parser.add_argument("--tasks", required=True, help="names: click,purchase")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--scores", type=Path, help="where to write the test rows' scores; none: not scored")
    args = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):  # peers print; our line stands alone
        made = run(args)
    print(json.dumps(made), flush=True)
    os._exit(0)  # deepctr-torch waits here for an answer from the internet


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Time loading, building and one epoch; score afterwards."""
    torch.manual_seed(args.seed)
    peer = PEERS[args.peer]()
    import_module(peer.module)
    sizes = [int(size) for size in args.sizes.split(",")]
    before = peak_mb()
    began = time.perf_counter()
    columns, labels = read(args.arrays, "train", args.rows)
    peer.build(sizes, len(columns) - len(sizes), args.tasks.split(","))
    peer.train(columns, labels, args.batch, timed=args.scores is None)
    seconds = time.perf_counter() - began
    peak = peak_mb()
    if args.scores is not None:
        np.save(args.scores, np.asarray(peer.score(read(args.arrays, "test", None)[0]), np.float32))
    return {
        "rows": len(labels),
        "seconds": seconds,
        "peak_rss_mb": peak,
        "imports_rss_mb": before,
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in (peer.package, "torch", "numpy")},
    }


def read(arrays: Path, part: str, rows: int | None) -> tuple[Columns, np.ndarray]:
    """Read a part of the log as columns by name."""
    ids, numbers, labels = (
        np.array(np.load(arrays / f"{part}_{name}.npy", mmap_mode="r")[:rows])
        for name in ("ids", "numbers", "labels")
    )
    columns = {f"c{c}": np.ascontiguousarray(ids[:, c]) for c in range(ids.shape[1])}
    return columns | {f"n{f}": np.ascontiguousarray(numbers[:, f]) for f in range(numbers.shape[1])}, labels


def peak_mb() -> float:
    """Give the most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
