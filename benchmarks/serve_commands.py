"""The command `recsys bench serve`: on a synthetic bundle, or on a live one (--runs)."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.options import (
    STANDARD_OUTPUT,
    ConfigOption,
    JsonOption,
    SeedOption,
    parse_numbers,
    parse_workers,
    put_json,
)

_MAX_CLIENTS = 1_000
_DAY_S = 86_400.0


def parse_clients(text: str) -> list[int]:
    """Read numbers of clients, `A,B,…`.

    Raises: BadParameter, to which typer adds the option's name.
    """
    return parse_numbers(text, _MAX_CLIENTS)


ItemsOption = Annotated[int, typer.Option(min=1_000, help="Items of the synthetic bundle.")]
PartOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Only this part: latency, max-rate, swaps, overload, recall or resources, which are the "
        "default; or profile, soak, month or kills. May be given several times."
    ),
]
AddOption = Annotated[bool, typer.Option("--add", help="Add to the figures that --json FILE has.")]
SecondsOption = Annotated[float, typer.Option(min=0.1, max=_DAY_S, help="Length of each run of load.")]
RateOption = Annotated[
    float, typer.Option(min=0.0, max=1e6, help="Highest rate, calls/s; 0: it is searched for.")
]
ConnectionsOption = Annotated[int, typer.Option(min=1, max=_MAX_CLIENTS, help="Connections of the load.")]
BenchWorkersOption = Annotated[
    Any,
    typer.Option(
        metavar="auto|N", parser=parse_workers, help="Worker processes; auto: as many as processors."
    ),
]
SwapsOption = Annotated[int, typer.Option(min=1, help="Versions that go live in the part swaps.")]
MinutesOption = Annotated[float, typer.Option(min=0.1, max=_DAY_S / 60, help="Length of the part soak.")]
SearchesOption = Annotated[int, typer.Option(min=1, help="Filtered searches of the part recall.")]
CacheOption = Annotated[
    Path | None,
    typer.Option(file_okay=False, help="Folder of synthetic bundles; default: in the user's cache."),
]
LiveRunsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Measure the live bundle of this runs folder; with --config and --log."
    ),
]
LiveLogOption = Annotated[Path | None, typer.Option(metavar="FOLDER", help="The interaction log.")]
ClientsOption = Annotated[
    Any, typer.Option(metavar="A,B,…", parser=parse_clients, help="With --runs: numbers of clients.")
]
PageSizeOption = Annotated[int, typer.Option(min=1, help="With --runs: items per page.")]
NewItemsOption = Annotated[int, typer.Option(min=0, help="With --runs: upsert so many new items first.")]

_WITH_RUNS = ("config", "log", "clients", "page_size", "new_items")
_WITHOUT_RUNS = (
    "items",
    "part",
    "add",
    "rate",
    "connections",
    "workers",
    "swaps",
    "minutes",
    "searches",
    "cache",
    "seed",
)


def bench_serve_command(
    context: typer.Context,
    json_file: JsonOption = None,
    items: ItemsOption = 1_000_000,
    part: PartOption = None,
    add: AddOption = False,
    seconds: SecondsOption = 8.0,
    rate: RateOption = 0.0,
    connections: ConnectionsOption = 8,
    workers: BenchWorkersOption = "auto",
    swaps: SwapsOption = 10,
    minutes: MinutesOption = 30.0,
    searches: SearchesOption = 10_000,
    cache: CacheOption = None,
    seed: SeedOption = 0,
    runs: LiveRunsOption = None,
    config: ConfigOption = None,
    log: LiveLogOption = None,
    clients: ClientsOption = "1,4,16",
    page_size: PageSizeOption = 10,
    new_items: NewItemsOption = 0,
) -> None:
    """Measure a server on a synthetic bundle of a million items, or on a live bundle (--runs)."""
    if runs is not None:
        _refuse(context, _WITHOUT_RUNS, "without --runs")
        _bench_live(json_file, runs, config, log, clients, seconds, page_size, new_items)
        return
    _refuse(context, _WITH_RUNS, "with --runs")
    from benchmarks.speed.serve.bundle import Sizes
    from benchmarks.speed.serve.serve_bench import DEFAULT_PARTS, added, measure_serve
    from benchmarks.speed.serve.serve_tables import show_serve
    from benchmarks.speed.serve.session import Asked

    asked = Asked(
        parts=part or DEFAULT_PARTS,
        seconds=seconds,
        connections=connections,
        workers=workers,
        swaps=swaps,
        minutes=minutes,
        searches=searches,
        rate=rate,
    )
    known = _figures_of(json_file) if add else None
    tree = measure_serve(asked, Sizes(items=items, seed=seed), cache, known)
    if known is not None:
        tree = added(known, tree)
    put_json(tree, json_file, lambda: show_serve(tree))


def _bench_live(
    json_file: Path | None,
    runs: Path,
    config: Path | None,
    log: Path | None,
    clients: list[int],
    seconds: float,
    page_size: int,
    new_items: int,
) -> None:
    from benchmarks.speed.serve.live import measure_live, show_live

    if config is None or log is None:
        raise typer.BadParameter("--runs needs --config and --log, as `recsys serve` does")
    report = measure_live(config, log, runs, clients, seconds, page_size, new_items)
    put_json(report.as_json(), json_file, lambda: show_live(report))


def _refuse(context: typer.Context, names: Collection[str], when: str) -> None:
    """Refuse options that this bench does not read: their values would be ignored in silence."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"--{name.replace('_', '-')} is read {when} only; leave it out")


def _figures_of(json_file: Path | None) -> dict[str, Any] | None:
    """Read the figures of earlier runs; None when the file is not there yet.

    Raises: BadParameter when there is no file to add to, or it holds something else.
    """
    if json_file is None or json_file == STANDARD_OUTPUT:
        raise typer.BadParameter("--add needs --json FILE: the figures are added to those of that file")
    if not json_file.exists():
        return None
    try:
        known = json.loads(json_file.read_bytes())
    except ValueError:
        known = None
    if not isinstance(known, dict) or not isinstance(known.get("runs"), list):
        raise typer.BadParameter(
            f"--add: {json_file} is no result of `recsys bench serve`; name another, or leave --add out"
        )
    return known
