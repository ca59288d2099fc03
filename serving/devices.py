"""`[serving] device` -> where requests are scored and where items are searched."""

from dataclasses import dataclass

import structlog
import torch

from recsys.device import CPU, resolve_device
from recsys.errors import ConfigError
from recsys.gpu_index import why_no_gpu_search

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Devices:
    """Where a server computes."""

    scorer: torch.device = CPU
    index: torch.device = CPU
    engine: str = "eager"
    """`[serving] engine`."""


ON_CPU = Devices()


def choose_devices(name: str) -> Devices:
    """Resolve `[serving] device`; where `auto` searches items on the processor beside a GPU, the log says so.

    Raises: ConfigError when `cuda` is asked for and torch or FAISS cannot use a GPU here.
    """
    device = resolve_device(name, "serving")
    if device == CPU:
        return ON_CPU
    why = why_no_gpu_search()
    if why is None:
        return Devices(device, device)
    if name == "cuda":
        raise ConfigError(f'[serving] device = "cuda": {why}; or write "auto": items are searched on the CPU')
    _log.warning("items_searched_on_cpu", scored_on=str(device), reason=why)
    return Devices(device, CPU)
