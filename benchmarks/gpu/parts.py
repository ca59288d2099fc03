"""The parts of the bench, in order: what matters most comes first, as time may run out.

Down to `scoring` all have their time, also where each one takes its limit.
"""

from dataclasses import dataclass


class SkippedError(Exception):
    """Raised by a part that cannot run here; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part."""

    function: str
    """ "module:function": settings -> what was found, with a `line` for people."""
    limit_s: float
    """A part that takes longer is ended."""


PARTS: dict[str, Part] = {
    "machine": Part("benchmarks.gpu.machine:describe_machine", 50),
    "rates": Part("benchmarks.gpu.rates:measure_rates", 20),
    "product": Part("benchmarks.gpu.product:measure_product", 80),
    "click_log": Part("benchmarks.gpu.click_log:measure_click_log", 70),
    "agreement": Part("benchmarks.gpu.product:compare_with_cpu", 80),
    "scoring": Part("benchmarks.gpu.scoring:measure_scoring", 30),
    "waits": Part("benchmarks.gpu.product:find_waits", 20),
    "profile": Part("benchmarks.gpu.profile:profile_product", 40),
    "forms": Part("benchmarks.gpu.forms:compare_forms", 30),
    "faiss": Part("benchmarks.gpu.carried:measure_faiss", 40),
    "fbgemm": Part("benchmarks.gpu.carried:measure_fbgemm", 40),
}
