"""What the device does at best: large products, copies in its memory and from the host, small operations."""

from typing import Any

import torch

from benchmarks.gpu.settings import Settings

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
_PRODUCT, _CPU_PRODUCT = 8192, 512
_COPIED, _CPU_COPIED = 1 << 30, 1 << 26
_SMALL = 200


def measure_rates(settings: Settings) -> dict[str, Any]:
    """Measure the rates that floors are made of, and how long one small operation takes."""
    device, on_gpu = settings.device, settings.device.type == "cuda"
    size, num_bytes = (_PRODUCT, _COPIED) if on_gpu else (_CPU_PRODUCT, _CPU_COPIED)
    products = {}
    for name, dtype in PRECISIONS.items():
        a = torch.randn(size, size, device=device).to(dtype)
        products[name] = 2.0 * size**3 / settings.seconds_each(lambda a=a: a @ a)  # type: ignore[misc]
    data = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(data)
    moved = 2.0 * num_bytes / settings.seconds_each(lambda: target.copy_(data))
    host = torch.ones(num_bytes // 16, pin_memory=on_gpu)
    part = target[: host.numel()]
    carried = 4.0 * host.numel() / settings.seconds_each(lambda: part.copy_(host, non_blocking=True))
    one = torch.ones(64, device=device)

    def small() -> None:
        for _ in range(_SMALL):
            one.add_(1.0)

    return {
        "product_flop_per_second": products,
        "memory_bytes_per_second": moved,
        "host_to_device_bytes_per_second": carried,
        "small_operation_us": 1e6 * settings.seconds_each(small) / _SMALL,
        "product_size": size,
        "copied_bytes": num_bytes,
        "line": f"products {products['bf16'] / 1e12:.3g} Tflop/s bf16, {products['fp32'] / 1e12:.3g} fp32; "
        f"memory {moved / 1e9:,.0f} GB/s; from the host {carried / 1e9:.1f} GB/s",
    }
