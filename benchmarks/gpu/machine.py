"""Which machine and which versions made the figures."""

import os
import platform
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.device_time import wait_for
from benchmarks.gpu.settings import Settings
from recsys.device import has_fast_bf16


def describe_machine(settings: Settings) -> dict[str, Any]:
    """Name the device and the versions; the device's first use is made here."""
    device, on_gpu = settings.device, settings.device.type == "cuda"
    torch.ones(8, device=device).sum()
    wait_for(device)
    name = torch.cuda.get_device_name(device) if on_gpu else platform.processor() or platform.machine()
    found: dict[str, Any] = {
        "device": name,
        "device_type": device.type,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "fast_bf16": has_fast_bf16(device),
        "line": f"{name}, torch {torch.__version__}",
    }
    if on_gpu:
        free, total = torch.cuda.mem_get_info(device)
        found |= {"device_memory_mb": total / 2**20, "free_device_memory_mb": free / 2**20}
    return found
