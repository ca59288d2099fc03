"""Where the time of the product model's step is, today and at an earlier commit, in both precisions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.grids import Grid
from benchmarks.speed.fresh_run import quiet_run
from benchmarks.speed.training.product_speed import EPOCH, Programs
from benchmarks.speed.training.systems import PRECISIONS

PROFILE: Final = Path(__file__).with_name("product_profile.py")


def measure_profile(programs: Programs) -> dict[str, Any]:
    """Profile one thread's steps of every commit, in float32 and bfloat16."""
    found: dict[str, Any] = {}
    for name, tree in programs.trees.items():
        command = [str(PROFILE) if word == str(EPOCH) else word for word in programs.commands[name]]
        for precision in PRECISIONS:
            asked = [*command, "--precision", precision]
            run = quiet_run(asked, programs.cores, programs.patience, 1, (tree,))
            found.setdefault(name, {})[precision] = run.report | {"other_cores": run.other_cores}
    return {"profile": found}


def profile_grid(tree: Mapping[str, Any]) -> Grid:
    """Lay out the operators of every profile, the largest first, and each kind's sum."""
    lines = [["product step", "operator", "inputs", "calls", "ms", "share"]]
    for name, of in tree["profile"].items():
        for precision, found in of.items():
            which = f"{name}, {precision}"
            lines.append([which, "all", "", "", f"{found['ms_per_step']:.1f}", "100 %"])
            for kind, sums in found["kinds"].items():
                lines.append([which, kind, "", "", f"{sums['ms']:.2f}", f"{sums['share']:.1%}"])
            for one in found["operators"]:
                cells = [one["name"], one["shapes"], f"{one['calls']:.1f}", f"{one['ms']:.2f}"]
                lines.append([which, *cells, f"{one['share']:.1%}"])
    return lines
