"""Commands of the benchmarks on the simulated shop: nights, and what lists are worth by its truth."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from recsys.options import (
    ConfigOption,
    JsonOption,
    SeedOption,
    file_place,
    put_json,
)


def bench_nightly_command(
    part: Annotated[
        Literal["crash", "gate", "scale", "rollback", "long"], typer.Option(help="What is measured.")
    ] = "crash",
    kills: Annotated[int, typer.Option(min=1, help="crash: how many times a night is killed, in all.")] = 50,
    honest: Annotated[int, typer.Option(min=1, help="gate: nights of equal models.")] = 200,
    margin: Annotated[int, typer.Option(min=1, help="gate: nights of models at the margin.")] = 2_000,
    primary: Annotated[
        str, typer.Option(help="gate: the metric that compares binary heads; auc: AUC of all rows.")
    ] = "list_auc",
    rows: Annotated[
        str, typer.Option(metavar="N,...", help="scale: impressions of each log, such as 1M,5M,20M.")
    ] = "1M",
    days: Annotated[int, typer.Option(min=5, help="scale: days of each log.")] = 30,
    learned_days: Annotated[
        int, typer.Option(min=1, help="scale: so many of them are learned: [training] max_days.")
    ] = 2,
    before: Annotated[
        str | None, typer.Option(metavar="REV", help="scale: also run this commit's nights, in turn.")
    ] = None,
    nights: Annotated[int, typer.Option(min=4, max=60, help="long: nights in a row.")] = 28,
    users: Annotated[int, typer.Option(min=20, help="long: users of the simulated shop.")] = 300,
    page: Annotated[
        Path | None,
        typer.Option(parser=file_place, metavar="FILE", help="long: also write a page with plots."),
    ] = None,
    svg: Annotated[
        Path | None,
        typer.Option(parser=file_place, metavar="FILE", help="long: also draw the true value by night."),
    ] = None,
    seed: SeedOption = 0,
    json_file: JsonOption = None,
) -> None:
    """Measure nights of the simulated shop.

    \b
    crash     killed at random instants and run again: is the result that of an undisturbed night?
    gate      held and promoted where the truth is known: honest nights, and eleven kinds of harm
    scale     seconds and memory of each stage by size of the log
    rollback  how long a real server takes to answer with the version before, also while a night runs
    long      four weeks of nights that serve their own lists, with drift, new items, two outages and a
              corrupt day; the true value of their lists, beside a first bundle's and that of no gate
    """
    measures = {
        "crash": partial(_crash, kills, seed),
        "gate": partial(_gate, honest, margin, seed, primary),
        "scale": partial(_scale, rows, days, learned_days, seed, before),
        "rollback": partial(_rollback, seed),
        "long": partial(_long, nights, users, seed, page, svg),
    }
    tree = {"part": part, **measures[part]()}
    put_json(tree, json_file, lambda: print(json.dumps(tree, indent=1)))


def _crash(kills: int, seed: int) -> dict[str, Any]:
    from benchmarks.nightly.crash import measure_crash, small_config

    return measure_crash(small_config(), kills, seed).to_json()


def _gate(honest: int, margin: int, seed: int, primary: str) -> dict[str, Any]:
    from benchmarks.nightly.gate import measure_gate

    return measure_gate(honest, margin, seed, primary).to_json()


def _scale(rows: str, days: int, learned_days: int, seed: int, before: str | None) -> dict[str, Any]:
    from benchmarks.nightly.scale import Scale, measure_scale, parse_rows

    asked = Scale(rows=parse_rows(rows), days=days, learned_days=learned_days, seed=seed)
    return measure_scale(asked, before)


def _rollback(seed: int) -> dict[str, Any]:
    from benchmarks.nightly.rollback import measure_rollback

    return measure_rollback(seed)


def _long(nights: int, users: int, seed: int, page: Path | None, svg: Path | None) -> dict[str, Any]:
    from benchmarks.nightly.long_page import long_curves, long_page
    from benchmarks.nightly.long_run import long_config, long_dials, measure_long
    from recsys.files import write_whole

    say = partial(print, file=sys.stderr, flush=True)
    tree = measure_long(long_config(), long_dials(users), nights, seed, say)
    if page is not None:
        write_whole(page, long_page(tree))
    if svg is not None:
        write_whole(svg, long_curves(tree))
    return tree


def bench_nights_command(
    json_file: JsonOption = None,
    config: ConfigOption = None,
    users: Annotated[int, typer.Option(min=10, help="Users of the simulated shop.")] = 3_000,
    items: Annotated[int, typer.Option(min=100, help="Items available on any day.")] = 1_000,
    days: Annotated[int, typer.Option(min=6, help="Days of its log.")] = 12,
    nights: Annotated[int, typer.Option(min=1, help="Nights that are compared: the last ones.")] = 4,
    restart: Annotated[int, typer.Option(min=2, help="Nights between two cold ones, in one policy.")] = 2,
    hours: Annotated[int, typer.Option(min=1, max=12, help="Hours between two updates of the day.")] = 1,
    drift: Annotated[
        float, typer.Option(min=0, help="The shop's dial: radians that tastes turn a day.")
    ] = 0.05,
    new_items: Annotated[float, typer.Option(min=0, max=0.2, help="The dial: items that come a day.")] = 0.05,
    seed: SeedOption = 0,
) -> None:
    """Simulate a shop that drifts; train its last nights by several policies; score days not yet learned."""
    from benchmarks.nights.nights import measure_nights
    from benchmarks.nights.nights_tables import show_nights
    from features.definitions import read_config
    from recsys.simulator.dials import ShopDials

    if days < nights + 5:
        raise typer.BadParameter(f"--days {days}: {nights} nights need at least {nights + 5}")
    dials = ShopDials(users=users, items=items, days=days, drift=drift, new_item_rate=new_items)
    result = measure_nights(read_config(config), dials, nights, restart, hours, seed)
    put_json(result, json_file, lambda: show_nights(result))


def bench_lists_command(
    json_file: JsonOption = None,
    config: ConfigOption = None,
    seeds: Annotated[int, typer.Option(min=1, help="Shops; their seeds go up from --first-seed.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first shop.")] = 0,
    regimes: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="How the shop chose what its log shows: tastes (it knows most of each), ignorant (as sharp, "
            "it knows none), uniform (evenly).",
        ),
    ] = "tastes,ignorant,uniform",
    requests: Annotated[int, typer.Option(min=20, help="Requests whose pages are valued.")] = 2_000,
    users: Annotated[int, typer.Option(min=50, help="Users of the simulated shop.")] = 5_000,
    items: Annotated[int, typer.Option(min=100, help="Items available on any day.")] = 2_000,
    days: Annotated[int, typer.Option(min=6, help="Days of its log.")] = 12,
) -> None:
    """Value the pages of many policies by the simulated shop's truth, and offline metrics against it."""
    from benchmarks.lists.lists_tables import show_lists
    from benchmarks.lists.run_lists import Asked, measure_lists
    from benchmarks.lists.shop_night import parse_regimes
    from features.definitions import read_config

    asked = Asked(
        config=read_config(config),
        seeds=range(first_seed, first_seed + seeds),
        regimes=parse_regimes(regimes),
        requests=requests,
        dials={"users": users, "items": items, "days": days},
    )
    tree = measure_lists(asked)
    put_json(tree, json_file, lambda: show_lists(tree))


def bench_loop_command(
    json_file: JsonOption = None,
    config: ConfigOption = None,
    nights: Annotated[int, typer.Option(min=1, max=50, help="Nights in a row.")] = 10,
    seed: SeedOption = 0,
    users: Annotated[int, typer.Option(min=50, help="Users of the simulated shop.")] = 2_000,
    items: Annotated[int, typer.Option(min=100, help="Items available on any day.")] = 1_000,
    days: Annotated[int, typer.Option(min=3, help="Days of its log before the first night.")] = 14,
    svg: Annotated[
        Path | None, typer.Option(parser=file_place, metavar="FILE", help="Also draw the curve here.")
    ] = None,
) -> None:
    """Run nights that serve their own lists and learn from them, beside one bundle that stays as it is."""
    from benchmarks.grids import print_grid
    from benchmarks.loop.loop import measure_loop
    from benchmarks.loop.loop_pages import nights_grid, value_curve
    from features.definitions import read_config
    from recsys.files import write_whole
    from recsys.simulator.dials import ShopDials

    dials = ShopDials(users=users, items=items, days=days)
    tree = measure_loop(read_config(config), dials, nights, seed)
    if svg is not None:
        write_whole(svg, value_curve(tree))
    put_json(tree, json_file, lambda: print_grid(nights_grid(tree)))


def bench_offpolicy_command(
    json_file: JsonOption = None,
    logs: Annotated[int, typer.Option(min=2, help="Logs of each setting.")] = 200,
    requests: Annotated[int, typer.Option(min=100, help="Lists of a log.")] = 4_000,
    replicates: Annotated[int, typer.Option(min=10, help="Bootstrap draws of an interval.")] = 400,
    open_bandit: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Also the small Open Bandit data: its folder with random/ and bts/."
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(parser=file_place, metavar="FILE.svg", help="Write the plot of coverage."),
    ] = None,
    seed: SeedOption = 0,
) -> None:
    """Hold off-policy estimates against the truth of the simulated shop: bias, variance, coverage."""
    from benchmarks.offpolicy.run import coverage_plot, measure_offpolicy, show_offpolicy
    from recsys.files import write_whole

    tree = measure_offpolicy(logs, requests, replicates, seed, open_bandit)
    if plot is not None:
        write_whole(plot, coverage_plot(tree))
    put_json(tree, json_file, lambda: show_offpolicy(tree))
