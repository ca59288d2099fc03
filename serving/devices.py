"""`[serving] device` -> where requests are scored and where items are searched."""

from dataclasses import dataclass, replace

import structlog
import torch

from recsys.device import CPU, has_fast_bf16, resolve_device
from recsys.errors import ConfigError
from recsys.gpu_index import why_no_gpu_search
from recsys.model.engines import BFLOAT16

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


def with_engine(devices: Devices, name: str) -> Devices:
    """Add `[serving] engine`.

    Raises: ConfigError when bfloat16 is asked for by name where requests are not scored in it.
    """
    if name == BFLOAT16 and not multiplies_bfloat16(devices.scorer):
        where = "this processor does not multiply bfloat16" if devices.scorer == CPU else "a GPU scores here"
        raise ConfigError(f'[serving] engine = "bfloat16": {where}; write "auto" or "eager"')
    return replace(devices, engine=name)


def multiplies_bfloat16(scorer: torch.device) -> bool:
    """Tell whether a scorer's device is a processor that multiplies bfloat16; engines are for processors."""
    return scorer == CPU and has_fast_bf16(CPU)
