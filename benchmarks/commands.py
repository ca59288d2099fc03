"""Commands of the benchmarks: bench quality, bench tables, and one for the speed of each room."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from benchmarks.quality import SETS
from recsys.options import (
    ConfigOption,
    JsonOption,
    SeedOption,
    file_place,
    parse_numbers,
    put_json,
)

DOCS = Path(__file__).resolve().parents[1] / "docs"
ProductLog = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Log of the product model; default: a few simulated days."),
]

BatchOption = Annotated[
    Any,
    typer.Option(metavar="A,B,…", parser=parse_numbers, help="Batch sizes, one after the other."),
]


def bench_quality_command(
    name: Annotated[str, typer.Option("--set", help=f"One of: {', '.join(SETS)}.")],
    data: Annotated[Path, typer.Option(help="Folder of the set's published files.")],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row, seeds 0, 1, ….")] = 3,
    rows: Annotated[str, typer.Option(help="Only these rows of the table, by name: a,b,c.")] = "",
    json_file: JsonOption = None,
) -> None:
    """Train every model of a set and print what each reaches on the published test rows."""
    from benchmarks.quality.run_set import run_set, show_set

    tree = run_set(name, data, seeds, [row for row in rows.split(",") if row])
    put_json(tree, json_file, lambda: show_set(tree))


def bench_inside_command(
    name: Annotated[str, typer.Option("--set", help="kuairand or shop.")],
    data: Annotated[Path, typer.Option(help="Folder of the set's published files, or of the shop's log.")],
    seeds: Annotated[int, typer.Option(min=1, help="Models, seeds 0, 1, …; figures are their means.")] = 1,
    json_file: JsonOption = None,
) -> None:
    """Say what orders the rows of a list: how much of it is the user's, and what each input adds."""
    from benchmarks.quality.inside_lists.run_diagnosis import run_diagnosis, show_diagnosis

    tree = run_diagnosis(name, data, seeds)
    put_json(tree, json_file, lambda: show_diagnosis(tree))


def bench_tables_command(
    docs: Annotated[
        Path,
        typer.Option(help="Folder with benchmarks.md and benchmarks/; the JSON is in benchmarks/results."),
    ] = DOCS,
) -> None:
    """Write the tables of the benchmark pages anew, from the JSON of the benches."""
    from benchmarks.quality.result_pages import fill_pages

    for page, text in fill_pages(docs).items():
        changed = page.read_text() != text
        page.write_text(text)
        print(f"{page}: {'written' if changed else 'as it was'}")


def bench_store_command(
    users: Annotated[int, typer.Option(min=1_000, help="Users to publish.")] = 200_000,
    reads: Annotated[int, typer.Option(min=100, help="Reads of each kind.")] = 2_000,
    url: Annotated[str, typer.Option(help="Measure this store; default: SQLite and two Valkeys.")] = "",
    shop: Annotated[int, typer.Option(min=20, help="Users of the shop that rows come from.")] = 5_000,
    days: Annotated[int, typer.Option(min=2, help="Days of that shop.")] = 12,
    json_file: JsonOption = None,
) -> None:
    """Measure the online stores and print JSON."""
    from benchmarks.speed.store import measure_stores
    from recsys.simulator.dials import ShopDials

    _put(measure_stores(ShopDials(users=shop, days=days), users, reads, url), json_file)


def bench_item_item_command(
    items: Annotated[int, typer.Option(min=100, help="Items of the catalogue.")] = 1_000_000,
    events: Annotated[
        int, typer.Option(min=1_000, help="Events drawn; a user keeps the latest 200.")
    ] = 20_000_000,
    users: Annotated[int, typer.Option(min=10, help="Users.")] = 1_000_000,
    repeats: Annotated[int, typer.Option(min=1, help="Users that are scored; the median counts.")] = 300,
    seed: SeedOption = 0,
    json_file: JsonOption = None,
) -> None:
    """Build item-item weights of a made-up log, score users by them, and print JSON."""
    from benchmarks.speed.item_item import measure_item_item

    _put(measure_item_item(items, events, users, repeats, seed), json_file)


def bench_features_command(
    rows: Annotated[int, typer.Option(min=20_000, help="Impressions of the log.")] = 20_000_000,
    days: Annotated[int, typer.Option(min=12, help="Days of the log.")] = 180,
    pandas_rows: Annotated[int, typer.Option(min=20_000, help="Impressions that pandas gets.")] = 2_000_000,
    repeats: Annotated[int, typer.Option(min=1, help="Turns of each short phase; medians count.")] = 3,
    seed: SeedOption = 0,
    scratch: Annotated[Path | None, typer.Option(help="Folder for files; default: a temporary one.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Measure the building of features and print JSON."""
    from benchmarks.speed.features.feature_bench import measure_features

    _put(measure_features(scratch, rows, days, min(rows, pandas_rows), seed, repeats), json_file)


def bench_train_command(
    peer: Annotated[
        list[str] | None,
        typer.Option(help="Also time this peer: torch-rechub or deepctr-torch; may be given twice."),
    ] = None,
    before: Annotated[
        str | None, typer.Option(metavar="REV", help="Also time the product model of this commit.")
    ] = None,
    json_file: JsonOption = None,
    batch: BatchOption = "2048,8192",
    rows: Annotated[int, typer.Option(min=1_000, help="Rows of a timed epoch.")] = 400_000,
    auc_rows: Annotated[int, typer.Option(min=1_000, help="Rows of an epoch that is scored.")] = 2_000_000,
    seeds: Annotated[int, typer.Option(min=1, help="Epochs that are scored, per system and batch size.")] = 1,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first of them.")] = 0,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="Of ours; auto: the faster one in a short run.")
    ] = "auto",
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each; medians are reported.")] = 3,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this part: speed, auc or product, which are the default; profile, stages, "
            "processes, precision, memory or night. May be given several times."
        ),
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Add to the figures that --json FILE has.")] = False,
    config: ConfigOption = None,
    log: ProductLog = None,
    seed: SeedOption = 20_261_122,
) -> None:
    """Measure training beside peers on a synthetic log, and the product model beside an earlier commit."""
    from benchmarks.speed.training.training_bench import DEFAULT_PARTS, Asked, added, measure_training
    from benchmarks.speed.training.training_tables import show_training

    asked = Asked(
        peers=peer or [],
        before=before,
        batch_sizes=batch,
        rows=rows,
        auc_rows=auc_rows,
        seeds=range(first_seed, first_seed + seeds),
        precision=precision,
        repeats=repeats,
        seed=seed,
        parts=part or DEFAULT_PARTS,
        config=config,
        log=log,
    )
    tree = measure_training(asked)
    if add and json_file is not None and json_file.exists():
        tree = added(json.loads(json_file.read_text()), tree)
    put_json(tree, json_file, lambda: show_training(tree))


def bench_gpu_inputs_command(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to write; such as gpu-inputs.npz.")],
    config: ConfigOption = None,
    log: ProductLog = None,
    batches: Annotated[
        str, typer.Option(help="Batch sizes, and how many batches of each.")
    ] = "2048:8,8192:4,65536:2",
    seed: SeedOption = 0,
) -> None:
    """Write the inputs of benchmarks/gpu.sh: batches, requests and items of the product model."""
    from benchmarks.gpu.make_inputs import make_inputs, parse_batches
    from features.definitions import read_config

    _put(make_inputs(file, read_config(config), log, seed, parse_batches(batches)), None)


def bench_nightly_command(
    part: Annotated[
        Literal["crash", "gate", "scale", "rollback", "long"], typer.Option(help="What is measured.")
    ] = "crash",
    kills: Annotated[int, typer.Option(min=1, help="crash: how many times a night is killed, in all.")] = 50,
    honest: Annotated[int, typer.Option(min=1, help="gate: nights of equal models.")] = 200,
    margin: Annotated[int, typer.Option(min=1, help="gate: nights of models at the margin.")] = 2_000,
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
    if part == "long":
        found = _nightly_long(nights, users, seed, page)
    elif part == "gate":
        from benchmarks.nightly.gate import measure_gate

        found = measure_gate(honest, margin, seed).to_json()
    elif part == "scale":
        from benchmarks.nightly.scale import Scale, measure_scale, parse_rows

        asked = Scale(rows=parse_rows(rows), days=days, learned_days=learned_days, seed=seed)
        found = measure_scale(asked, before)
    else:
        from benchmarks.nightly.crash import measure_crash, small_config
        from benchmarks.nightly.rollback import measure_rollback

        found = (
            measure_rollback(seed)
            if part == "rollback"
            else measure_crash(small_config(), kills, seed).to_json()
        )
    said = {"part": part, **found}
    put_json(said, json_file, lambda: print(json.dumps(said, indent=1)))


def _nightly_long(nights: int, users: int, seed: int, page: Path | None) -> dict[str, Any]:
    from benchmarks.nightly.long_page import long_page
    from benchmarks.nightly.long_run import long_config, long_dials, measure_long
    from recsys.files import write_whole

    say = partial(print, file=sys.stderr, flush=True)
    tree = measure_long(long_config(), long_dials(users), nights, seed, say)
    if page is not None:
        write_whole(page, long_page(tree))
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
    seeds: Annotated[int, typer.Option(min=1, help="Shops, seeds FIRST, FIRST + 1, ….")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first shop.")] = 0,
    regimes: Annotated[
        str, typer.Option(help="What the shop's own policy does: of tastes, ignorant, uniform; a,b,….")
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
    days: Annotated[int, typer.Option(min=3, help="Days that its own policy serves before.")] = 14,
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


def bench_trunks_command(
    json_file: JsonOption = None,
    config: ConfigOption = None,
    experts: Annotated[int, typer.Option(min=1, help="Experts of MMoE and shared ones of PLE.")] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="Turns; medians are reported.")] = 7,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="Of matrix products.")] = "fp32",
) -> None:
    """Measure a step of every trunk at the same number of parameters."""
    from benchmarks.speed.shop_days import built_days
    from benchmarks.speed.trunks import measure_trunks, show_trunks
    from features.definitions import read_config

    settings = read_config(config)
    with built_days(settings) as days:
        result = measure_trunks(days, settings, experts, repeats, precision)
    put_json(result, json_file, lambda: show_trunks(result))


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


def bench_balancing_command(
    json_file: JsonOption = None,
    config: ConfigOption = None,
    seeds: Annotated[int, typer.Option(min=2, help="Draws of the two-task problem.")] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="Fits per method; medians are reported.")] = 3,
) -> None:
    """Compare the balancing methods on a planted conflict, and their cost per step."""
    from benchmarks.speed.balancing import measure_balancing, show_balancing
    from features.definitions import read_config

    result = measure_balancing(read_config(config), seeds, repeats)
    put_json(result, json_file, lambda: show_balancing(result))


def _put(result: dict[str, Any], json_file: Path | None) -> None:
    """Put out a result that has no table: its JSON is printed."""
    put_json(result, json_file, lambda: print(json.dumps(result, indent=1)))
