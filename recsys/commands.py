"""The command of the bottom room: simulate."""

import time
from pathlib import Path
from typing import Annotated

import typer

from recsys.options import SeedOption
from recsys.simulator.dials import ShopDials

_DEFAULTS = ShopDials()
_COUNTED = ("users", "items", "requests", "impressions", "feedback", "click", "purchase", "rating", "refund")


def simulate_command(
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="The log's folder; must be absent or empty.")
    ],
    seed: SeedOption = 0,
    days: Annotated[int, typer.Option(help="Days in the log; the last one stays the same.")] = _DEFAULTS.days,
    users: Annotated[
        int, typer.Option(help="Users on the first day; the number of requests grows with it.")
    ] = _DEFAULTS.users,
    items: Annotated[int, typer.Option(help="Items available on any day.")] = _DEFAULTS.items,
    dial: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Any other dial of recsys/simulator/dials.py; may be repeated.",
        ),
    ] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace the log that is there.")] = False,
) -> None:
    """Write the simulated shop's interaction log, and the truth behind it into OUT/truth."""
    from rich.console import Console

    from recsys.simulator.simulate import clear_folder, make_dials, simulate

    dials = make_dials(days=days, users=users, items=items, others=dial or ())
    clear_folder(out, force=force)
    began = time.perf_counter()
    first, counts = simulate(dials, seed, out, Console(stderr=True))
    seconds = time.perf_counter() - began
    print(f"{out}: {first} to {dials.last_day}, seed {seed}, {seconds:.1f} s")
    print("  " + ", ".join(f"{counts.rows.get(name, 0):,} {name}" for name in _COUNTED))
    print(f"  click rate {counts.click_rate:.3f}, purchases per click {counts.purchase_rate:.3f}")
