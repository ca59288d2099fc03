"""What a part of the bench is given."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.device_time import seconds_each
from benchmarks.gpu.inputs import ProductInputs
from benchmarks.gpu.parts import SkippedError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Device, inputs and sizes."""

    device: torch.device
    file: Path
    small: bool
    """Seconds where a measurement takes many: for tests."""
    results: Path
    """Where the parts before wrote what they found."""

    @cached_property
    def inputs(self) -> ProductInputs:
        """Read the file of inputs, once. Raises: SkippedError without one."""
        if not self.file.is_file():
            raise SkippedError(f"no inputs at {self.file}; make them with `recsys bench gpu-inputs FILE`")
        return ProductInputs.read(self.file)

    @property
    def seconds(self) -> float:
        """Say how long one figure is measured."""
        return 0.1 if self.small else 4.0

    def seconds_each(self, call: Callable[[], object]) -> float:
        """Give the median time of a call that is made many times."""
        return seconds_each(call, self.device, self.seconds / 8)

    def earlier(self, part: str) -> dict[str, Any]:
        """Give what an earlier part found; nothing when it found nothing."""
        for line in self.results.read_text().splitlines():
            said = json.loads(line)
            if said.get("part") == part and "found" in said:
                found: dict[str, Any] = said["found"]
                return found
        return {}
