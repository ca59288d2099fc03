"""A second device for machines without a GPU: what is computed on it is right, what is left behind is found.

`pretend:0` is a backend of torch's own making for tests: its tensors hold ordinary ones, and every operation
runs on those. So losses and gradients are the CPU's. An operation that gets
tensors of both devices fails, as it does on a GPU; torch's fake tensors find the same but hold no values,
which balancers and the reading of losses need. Every wait of the processor for the device is counted.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

aten = torch.ops.aten
NAME = "pretend"
COPIES = {aten._to_copy.default, aten.copy_.default}
"""The operations that may see two devices."""
WAITS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.bincount.default,
    aten.equal.default,
    aten.repeat_interleave.Tensor,
}
MASKED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""The operations that wait where an index is a mask: its true values must be counted."""
"""The operations whose result the processor must know, beside copies."""
waited: list[str] = []


class OnDevice(Tensor):
    """A tensor of the pretended device; `held` has its values."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        with torch.inference_mode(False):  # there too, a view of a parameter is an ordinary tensor
            made: OnDevice = Tensor._make_wrapper_subclass(
                cls,
                held.shape,
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=torch.device(NAME, 0),
            )
        made.held = held
        return made

    @property
    def data(self) -> Tensor:
        """Give the tensor without its graph."""
        return Tensor.data.__get__(self)

    @data.setter
    def data(self, other: "OnDevice") -> None:
        """Take another tensor's memory, as a view of a flat buffer is given to a parameter."""
        self.held = other.held
        Tensor.data.__set__(self, other)

    def tolist(self) -> Any:
        waited.append("tolist")
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Catches what makes tensors of nothing: `torch.zeros(3, device=...)` has no argument to dispatch on."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        with self:  # in inference mode, what is made of other operations comes here whole
            parts = func.decompose(*args, **(kwargs or {}))
        return _run(func, args, kwargs or {}) if parts is NotImplemented else parts


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [t for t in tensors if isinstance(t, OnDevice)]
    here = [t for t in tensors if not isinstance(t, OnDevice) and not _may_stay(t, func)]
    if there and here and func not in COPIES:
        shapes = [tuple(t.shape) for t in here]
        raise RuntimeError(f"{func}: tensors {shapes} are on the CPU, others on {there[0].device}")
    wanted = kwargs.get("device")
    if wanted is not None:
        to_device = torch.device(wanted).type == NAME
        kwargs = {**kwargs, "device": torch.device("cpu")}
    else:
        to_device = isinstance(args[0], OnDevice) if func is aten.copy_.default else bool(there)
    masked = func in MASKED and any(t.dtype == torch.bool for t in args[1] if t is not None)
    if func in WAITS or masked or _copies_and_waits(func, there, here, to_device, args, kwargs):
        waited.append(str(func))
    held = tree_map(lambda leaf: leaf.held if isinstance(leaf, OnDevice) else leaf, (args, kwargs))
    # What an operation changes in place it gives back: the same object must come out.
    known = {id(t.held): t for t in there} | {id(t): t for t in here}
    found = func(*held[0], **held[1])
    return tree_map(lambda leaf: _result(leaf, known, to_device), found)


def _copies_and_waits(func: Any, there: Any, here: Any, to_device: bool, args: Any, kwargs: Any) -> bool:
    """Tell whether an operation copies between the devices, either way, and the processor waits for it."""
    crosses = func in COPIES and ((there and not to_device) or (here and to_device))
    return crosses and not kwargs.get("non_blocking", len(args) > 2 and args[2])


def _may_stay(tensor: Tensor, func: Any) -> bool:
    """Tell whether a GPU would take this tensor from the CPU: a single number in an elementwise operation."""
    return tensor.dim() == 0 and torch.Tag.pointwise in func.tags


def _result(leaf: Any, known: dict[int, Tensor], to_device: bool) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    return known.get(id(leaf)) if id(leaf) in known else OnDevice(leaf) if to_device else leaf


def _in_bf16(op: Any) -> Any:
    """Cast as autocast does on a GPU: it knows no rules for a device of tests."""

    def run(*tensors: Any) -> Any:
        off = torch._C._ExcludeDispatchKeyGuard(
            torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
        )
        with off:
            return op(*(t.to(torch.bfloat16) if isinstance(t, Tensor) else t for t in tensors))

    return run


AUTOCAST = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
for product in (aten.linear.default, aten.matmul.default, aten.addmm.default):
    AUTOCAST.impl(product, _in_bf16(product))
OTHERS = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
OTHERS.fallback(torch.library.fallthrough_kernel)

# Here, before any test runs: the first backward of a process counts the devices, once.
_setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())


@pytest.fixture
def pretend() -> Iterator[torch.device]:
    """Give a device that is not the CPU; it is there as long as the test."""
    with _Factories():
        yield torch.device(NAME, 0)


@pytest.fixture
def waits(pretend: torch.device) -> list[str]:
    """Give the list of the processor's waits for the device; the test may clear it."""
    waited.clear()
    return waited


class FlatOnGpu:
    """What a caller must know of FAISS 1.15's GpuIndexFlat, on a copy in the processor's memory.

    It finds at most 2048 neighbours, takes a selector and does not read it, and is for one thread at a time.
    """

    def __init__(self, exact: Any) -> None:
        import faiss

        self.held, self.ntotal, self.d = faiss.clone_index(exact), exact.ntotal, exact.d
        self.asked: list[int] = []
        self._busy = threading.Lock()

    def search(self, x, k, *, params=None):
        if not 0 < k <= 2048:
            raise RuntimeError(f"GPU index only supports min/max-K selection up to 2048 (requested {k})")
        if not self._busy.acquire(blocking=False):
            raise AssertionError("two threads search on one GPU resource")
        try:
            time.sleep(0.0005)
            self.asked.append(k)
            return self.held.search(x, k)
        finally:
            self._busy.release()


class _Options:
    use_cuvs = True


class _Resources:
    def setTempMemory(self, size): ...


@pytest.fixture
def faiss_gpu(monkeypatch: pytest.MonkeyPatch) -> list[FlatOnGpu]:
    """Give FAISS what its build for CUDA has more than that for the CPU; the list has what is on the GPU."""
    import faiss

    made: list[FlatOnGpu] = []

    def index_cpu_to_gpu(provider, device, index, options=None):
        if not isinstance(faiss.downcast_index(index), faiss.IndexFlat):
            raise RuntimeError("This index type is not implemented on GPU.")
        assert not options.use_cuvs, "the build with cuVS would find, and filter, in another way"
        made.append(FlatOnGpu(index))
        return made[-1]

    monkeypatch.setattr(faiss, "StandardGpuResources", _Resources, raising=False)
    monkeypatch.setattr(faiss, "GpuClonerOptions", _Options, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", index_cpu_to_gpu, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    return made
