"""Commands of the benchmarks of speed and memory, one for each part of the product but the server."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from recsys.options import (
    ConfigOption,
    JsonOption,
    SeedOption,
    parse_numbers,
    put_json,
)

ProductLog = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Log of the product model; default: a few simulated days."),
]
BatchOption = Annotated[
    Any,
    typer.Option(metavar="A,B,…", parser=parse_numbers, help="Batch sizes, one after the other."),
]
PartOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Only this part: speed, auc or product, which are the default; profile, stages, "
        "processes, precision, memory or night. May be given several times."
    ),
]


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
    part: PartOption = None,
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
