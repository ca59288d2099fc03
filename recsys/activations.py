"""RUNS/registry/activations.jsonl: every move of the live pointer, oldest first; what can be gone back to."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from recsys.records import Activation


@dataclass(frozen=True, slots=True)
class Activations:
    """The file of one registry. A line is written before its pointer moves."""

    file: Path

    def append(self, entry: Activation) -> None:
        """Add a line, and force it onto the disk."""
        with self.file.open("a+b") as stream:
            # A line torn by a power cut must not swallow this one.
            if stream.tell() and not _ends_with_newline(stream):
                stream.write(b"\n")
            stream.write(entry.model_dump_json().encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    def read(self) -> Iterator[Activation]:
        """Read the activations, oldest first, without torn lines: no pointer ever followed one.

        Raises: RegistryError for a whole line that is something else.
        """
        try:
            lines = self.file.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return
        for number, line in enumerate(lines, start=1):
            if _is_json(line):
                yield Activation.parse(line, f"{self.file}, line {number},")

    def barred(self) -> dict[str, Activation]:
        """Give the versions rolled back and not activated by hand since: version -> its rollback."""
        found: dict[str, Activation] = {}
        for entry in self.read():
            if entry.rollback and entry.previous is not None:
                found[entry.previous] = entry
            found.pop(entry.version, None)
        return found

    def before(self, live: str | None) -> str | None:
        """Give what a rollback goes to: replay the activations that reached the pointer.

        Each says what was live when it was written.
        """
        stack: list[str] = []
        before: list[str] = []
        for entry in self.read():
            # A crash between line and pointer leaves a line that never went live.
            if entry.previous != _top(stack):
                stack = before
            before = stack
            stack = stack[:-1] if entry.rollback else [*stack, entry.version]
        if _top(stack) != live:
            stack = before
        return stack[-2] if len(stack) > 1 and _top(stack) == live else None


def _top(stack: list[str]) -> str | None:
    return stack[-1] if stack else None


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _ends_with_newline(stream: BinaryIO) -> bool:
    stream.seek(-1, os.SEEK_END)
    return stream.read(1) == b"\n"
