"""Batches are made in the background, a few ahead of the step that uses them."""

from collections.abc import Iterable, Iterator
from queue import Queue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


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
