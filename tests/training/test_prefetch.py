"""Batches for a GPU: copied beside the computation, used after the copy."""

from contextlib import contextmanager

import torch

from training.trainer.prefetch import batches_ahead

CUDA = torch.device("cuda", 0)


class _Stream:
    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    def record_event(self):
        self.notes.append(f"{self.name} records the end")
        return "the end"

    def wait_event(self, event):
        self.notes.append(f"{self.name} waits for {event}")


class _Batch:
    """A batch that is its own only tensor."""

    def __init__(self, notes, streams):
        self.notes, self.streams = notes, streams

    def pin(self):
        self.notes.append("pin")
        return self

    def to(self, device, *, non_blocking):
        assert (device, non_blocking) == (CUDA, True)
        self.notes.append(f"copy on {self.streams[-1].name}")
        return self

    def map(self, change):
        return change(self)

    def record_stream(self, stream):
        self.notes.append(f"kept for {stream.name}")


def test_a_copy_is_made_on_its_own_stream_and_waited_for_before_its_use(monkeypatch):
    notes = []
    computing, copying = _Stream("computing", notes), _Stream("copying", notes)
    streams = [computing]

    @contextmanager
    def entered(stream):
        streams.append(stream)
        yield
        streams.pop()

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: copying)
    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing)
    notes.extend("step" for _ in batches_ahead([_Batch(notes, streams)], CUDA))
    assert notes == [
        "pin",
        "copy on copying",
        "copying records the end",
        "computing waits for the end",
        "kept for computing",
        "step",
    ]
