"""Commands that read what nights have left: runs list, show, diff."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer

from recsys.options import JsonOption, RunsOption, put_json

RunArgument = Annotated[
    str, typer.Argument(metavar="NIGHT", help="A version, or a night's date; `recsys runs list` shows them.")
]
_LETTERS = 40
_DETAILS = {
    *("ci_low", "ci_high", "low", "high", "standard_error"),
    *("margin", "allowed", "equal_passes", "rows", "users"),
}
"""Of a check: what it is compared with, and how sure it is."""


def runs_list_command(runs: RunsOption, json_file: JsonOption = None) -> None:
    """List the nights and updates of a runs folder, oldest first, also those that did not go live."""
    from recsys.registry import Registry
    from training.kept_runs import list_runs

    registry = Registry(runs)
    registry.require_folder()
    found = [run.to_json() for run in list_runs(registry)]
    put_json(found, json_file, partial(_print_list, found))


def runs_show_command(run: RunArgument, runs: RunsOption, json_file: JsonOption = None) -> None:
    """Say what became of a night, by whom, what it learned from, and what it was made with."""
    from recsys.registry import Registry
    from training.kept_runs import describe_run, find_run

    registry = Registry(runs)
    said = describe_run(registry, find_run(registry, run))
    put_json(said, json_file, partial(_print_run, said))


def runs_diff_command(
    first: RunArgument, second: RunArgument, runs: RunsOption, json_file: JsonOption = None
) -> None:
    """List what differs between two nights: verdict, days, data, code, config, what the gate measured."""
    from recsys.registry import Registry
    from training.kept_runs import compare_runs, find_run

    registry = Registry(runs)
    one, other = find_run(registry, first), find_run(registry, second)
    found = compare_runs(registry, one, other)
    said = {
        "first": one.record.version,
        "second": other.record.version,
        "differences": [{"key": key, "first": a, "second": b} for key, a, b in found],
    }
    put_json(said, json_file, partial(_print_differences, said))


def _print_list(found: list[dict[str, Any]]) -> None:
    if found:
        print(f"{'night':<10}  {'version':<23}  {'start':<6}  verdict")
    for run in found:
        live = "live" if run["live"] else ""
        print(f"{run['night']}  {run['version']}  {run['kind']:<6}  {run['verdict']:<16}  {live:<4}".rstrip())
        for reason in run["reasons"]:
            print(f"            {reason}")
    if not found:
        print("no night has left a record; run `recsys nightly` first")


def _print_run(said: dict[str, Any]) -> None:
    record, lineage = said["record"], said["record"]["lineage"]
    print(f"{record['version']}: night of {record['night']}, {record['verdict']}" + ", live" * said["live"])
    print(f"  start      {record['start']}; parent {said['parent'] or 'none'}")
    print(f"  champion   {record['champion'] or 'none'}; evaluated {record['evaluated']}")
    if record["page"] is not None:
        print(f"  page       {record['page']}, in the runs folder")
    for at, lines in sorted(_history(said), key=lambda entry: entry[0]):
        print(f"  {at}  " + "\n    ".join(lines))
    for check in record["checks"]:
        print(f"  {check['outcome']:<16}  {check['name']}: {check['detail']}")
    for task, day in record["trained_until"].items():
        print(f"  {task}: trained until {day}, gated on {record['gated'].get(task, 'an unknown day')}")
    if lineage is not None:
        _print_lineage(lineage)


def _history(said: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """List rulings and moves of the pointer, each with its instant in UTC."""
    record = said["record"]
    for ruling in record["rulings"]:
        yield (
            _instant(datetime.fromisoformat(ruling["at"])),
            [
                f"{ruling['by']}: {ruling['verdict']}",
                *ruling["reasons"],
            ],
        )
    for move in said["activations"]:
        yield _instant(datetime.fromtimestamp(move["at"], UTC)), [_moved(move, record["version"])]


def _moved(move: dict[str, Any], version: str) -> str:
    by = f", by {move['who'] or 'an earlier release'}: {move['why'] or 'no word why'}"
    if move["version"] == version:
        return f"went live in place of {move['previous'] or 'nothing'}{by}"
    return f"{'was rolled back to' if move['rollback'] else 'gave way to'} {move['version']}{by}"


def _print_lineage(lineage: dict[str, Any]) -> None:
    libraries = ", ".join(f"{name} {version}" for name, version in lineage["libraries"].items())
    print(f"  code       recsys {lineage['code']}, python {lineage['python']}, {libraries}")
    print(f"  host       {lineage['host']}, seed {lineage['seed']}")
    for day, data in lineage["days"].items():
        rows = ", ".join(f"{count:,} {table}" for table, count in data["rows"].items())
        print(f"  {day}  {data['snapshot']}: {rows}")
    took = ", ".join(f"{stage} {seconds:g} s" for stage, seconds in lineage["seconds"].items() if seconds)
    print(f"  stages     {took}")


def _print_differences(said: dict[str, Any]) -> None:
    from training.differences import short

    print(f"{said['first']} | {said['second']}")
    left = 0
    for found in said["differences"]:
        key, both = found["key"], (found["first"], found["second"])
        rounded = [f"{v:.5g}" if isinstance(v, float) else v for v in both]
        alike = rounded[0] == rounded[1]
        if _is_detail(key) or (alike and key.startswith("checks.")):
            left += 1
            continue
        first, second = both if alike else rounded
        print(f"  {key}: {short(first, _LETTERS)} | {short(second, _LETTERS)}")
    if not said["differences"]:
        print("  nothing differs")
    elif left:
        print(f"  {left} more, limits and intervals of the checks and the gate's power: --json FILE has them")


def _is_detail(key: str) -> bool:
    """Say whether a difference follows from others: every night's intervals are a little different."""
    part = key.rpartition(".")[2]
    return key.startswith("power[") or (key.startswith("checks.") and part in _DETAILS)


def _instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
