"""Batches are made in the background, and moved to the device, a few ahead of the step that uses them."""

from collections.abc import Iterable, Iterator
from queue import Queue
from threading import Thread
from typing import TypeVar

import torch
from torch import Tensor

from recsys.batch import Batch

T = TypeVar("T")


def batches_ahead(batches: Iterable[Batch], device: torch.device, depth: int = 4) -> Iterator[Batch]:
    """Give batches on a device, a few of them made ahead of their use.

    A GPU's are copied while it computes: the background thread pins them and copies on a stream of its own;
    the stream that computes waits for the copy's event, the processor waits for nothing.
    """
    if device.type == "cuda":
        for batch, copied in ahead(_copies(batches, device), depth):
            stream = torch.cuda.current_stream(device)
            stream.wait_event(copied)
            yield batch.map(lambda tensor, stream=stream: _used_on(stream, tensor))  # type: ignore[misc]
    else:
        for batch in ahead(batches, depth):
            yield batch.to(device)


def _copies(batches: Iterable[Batch], device: torch.device) -> Iterator[tuple[Batch, torch.cuda.Event]]:
    """Start the copy of each batch, and give the event of its end."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for batch in batches:
        pinned = batch.pin()
        with torch.cuda.stream(stream):
            moved = pinned.to(device, non_blocking=True)
            copied = stream.record_event()
        yield moved, copied


def _used_on(stream: torch.cuda.Stream, tensor: Tensor) -> Tensor:
    """Keep the tensor's memory until the stream has read it: it was allocated for the copying stream."""
    tensor.record_stream(stream)
    return tensor


def ahead(items: Iterable[T], depth: int = 4) -> Iterator[T]:
    """Produce items in a background thread, a few ahead of their use; the producer's error is raised here."""
    queue: Queue[tuple[str, object]] = Queue(maxsize=depth)
    stopped = False

    def produce() -> None:
        try:
            for item in items:
                if stopped:
                    return
                queue.put(("item", item))
            queue.put(("end", None))
        except BaseException as error:
            queue.put(("error", error))

    thread = Thread(target=produce, daemon=True)
    thread.start()
    try:
        while True:
            what, value = queue.get()
            if what == "end":
                return
            if what == "error":
                raise value  # type: ignore[misc]
            yield value  # type: ignore[misc]
    finally:
        stopped = True
        while thread.is_alive() and not queue.empty():
            queue.get_nowait()
        thread.join(timeout=5)
