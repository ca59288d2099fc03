"""Where a step's time on the device is: torch's profiler over a few steps of the product model."""

from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.device_time import around, wait_for
from benchmarks.gpu.product import FIRST_STEPS
from benchmarks.gpu.settings import Settings
from training.trainer.fit import fit

STEPS = 10
LISTED = 25


def profile_product(settings: Settings) -> dict[str, Any]:
    """List the operations, or on a GPU the kernels, that take the most time of a step in bf16."""
    inputs, device = settings.inputs, settings.device
    batches = inputs.batches[max(inputs.batches)]
    ranker, tables = inputs.model(device)

    def run(steps: int) -> None:
        how = inputs.settings("bf16", device, steps)
        fit(ranker, tables, around(batches, steps), inputs.balancer(), inputs.heads, how)
        wait_for(device)

    run(1 if settings.small else FIRST_STEPS)
    on_gpu = device.type == "cuda"
    steps = 2 if settings.small else STEPS
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as seen:
        run(steps)
    found = [e for e in seen.key_averages() if not on_gpu or e.device_type.name == "CUDA"]
    times = [(e.self_device_time_total if on_gpu else e.self_cpu_time_total, e.count, e.key) for e in found]
    total = sum(us for us, _, _ in times) / steps
    return {
        "busy_ms_per_step": total / 1e3,
        "started_per_step": sum(count for _, count, _ in times) / steps,
        "largest": [
            {"name": key[:120], "ms_per_step": us / steps / 1e3, "per_step": count / steps}
            for us, count, key in sorted(times, reverse=True)[:LISTED]
        ],
        "line": f"{total / 1e3:.2f} ms of work a step in {sum(c for _, c, _ in times) / steps:,.0f} pieces",
    }
