"""Parts that need a package which a bare machine lacks: FAISS, and FBGEMM, whose kernels TorchRec runs."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.parts import SkippedError
from benchmarks.gpu.settings import Settings
from recsys.model.embeddings import EPS, LocalTables, TableSpec

ITEMS, SMALL_ITEMS, DIM, FOUND = 1_000_000, 2_000, 64, 300
QUERIES = (1, 16, 256)
TABLE_ROWS, SMALL_TABLE_ROWS, TABLE_DIM, LOOKED_UP = 4_000_000, 1_000, 32, 100_000


def measure_faiss(settings: Settings) -> dict[str, Any]:
    """Search a million vectors exactly, with FAISS on the GPU; on the CPU where the bench runs there."""
    import_or_skip("faiss")
    import faiss

    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((SMALL_ITEMS if settings.small else ITEMS, DIM), dtype=np.float32)
    faiss.normalize_L2(vectors)
    index = faiss.IndexFlatIP(DIM)
    if settings.device.type == "cuda":
        if not hasattr(faiss, "StandardGpuResources"):
            raise SkippedError(f"faiss {faiss.__version__} is built without CUDA")
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), settings.device.index or 0, index)
    index.add(vectors)
    found = {
        str(num): 1e3 * settings.seconds_each(lambda num=num: index.search(vectors[:num], FOUND))  # type: ignore[misc]
        for num in QUERIES
    }
    first = index.search(vectors[: QUERIES[-1]], 1)[1][:, 0]
    return {
        "items": len(vectors),
        "dim": DIM,
        "k": FOUND,
        "ms_by_queries": found,
        "own_vector_is_first": float((first == np.arange(QUERIES[-1])).mean()),
        "line": ", ".join(f"{ms:.2f} ms for {num} at once" for num, ms in found.items()),
    }


def measure_fbgemm(settings: Settings) -> dict[str, Any]:
    """Look up distinct rows of one table and step it: plain torch, FBGEMM's kernel, its cache over UVM."""
    import_or_skip("fbgemm_gpu")
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation

    places = {"fused": EmbeddingLocation.HOST}
    if settings.device.type == "cuda":
        places = {"fused": EmbeddingLocation.DEVICE, "fused, cached": EmbeddingLocation.MANAGED_CACHING}
    rows = SMALL_TABLE_ROWS if settings.small else TABLE_ROWS
    numbers = torch.from_numpy(
        np.sort(np.random.default_rng(0).choice(rows, min(LOOKED_UP, rows // 2), False))
    )
    numbers = numbers.to(settings.device)
    gradient = torch.randn(numbers.numel(), TABLE_DIM, device=settings.device)
    tables = LocalTables((TableSpec(name="item", size=rows, dim=TABLE_DIM),), 0.05, 0).to(settings.device)

    def plain() -> None:
        leaves = tables.lookup({"item": numbers})
        leaves["item"].grad = gradient
        tables.step({"item": numbers}, leaves)

    found = {"plain torch": 1e3 * settings.seconds_each(plain)}
    for name, place in places.items():
        step = _fused_step(settings, place, rows, numbers, gradient)
        found[name] = 1e3 * settings.seconds_each(step)
    return {
        "rows": rows,
        "dim": TABLE_DIM,
        "looked_up": numbers.numel(),
        "ms": found,
        "line": ", ".join(f"{name} {ms:.3f} ms" for name, ms in found.items()),
    }


def _fused_step(
    settings: Settings, place: Any, rows: int, numbers: Tensor, gradient: Tensor
) -> Callable[[], None]:
    """Build a table of FBGEMM's, which TorchRec's collections are made of, and give its lookup and step."""
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    on_gpu = settings.device.type == "cuda"
    table = SplitTableBatchedEmbeddingBagsCodegen(
        embedding_specs=[(rows, TABLE_DIM, place, ComputeDevice.CUDA if on_gpu else ComputeDevice.CPU)],
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=0.05,
        eps=EPS,
        pooling_mode=PoolingMode.NONE,
        device=settings.device,
    )
    offsets = torch.tensor([0, numbers.numel()], device=settings.device)

    def step() -> None:
        table(numbers, offsets).backward(gradient)

    return step


def import_or_skip(name: str) -> None:
    """Import a package. Raises: SkippedError, saying why it cannot be."""
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        raise SkippedError(f"{name} is not installed: {error}") from error
    except Exception as error:  # a wheel for another CUDA fails in ways of its own
        raise SkippedError(f"{name} cannot be imported: {error}") from error
