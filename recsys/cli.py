"""The command line: COMMANDS maps a name to "module:function", imported when the command is used.

Commands are plain functions with typer annotations. Nothing here imports a room above this one, and
`recsys --help` starts without torch.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recsys.errors import ConfigError, RecsysError

INTERRUPTED = 130
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": (
        "serving.commands:demo_command",
        "Run the whole loop on the simulated shop and report the results.",
    ),
    "simulate": ("recsys.commands:simulate_command", "Write the simulated shop's interaction log."),
    "convert": (
        "features.commands:convert_command",
        "Turn your own files, or a public data set, into an interaction log.",
    ),
    "data validate": (
        "features.commands:data_validate_command",
        "Check a day's data against the days before it; nothing is trained.",
    ),
    "data features": (
        "features.commands:data_features_command",
        "List the features of a config: entity, kind, freshness, columns.",
    ),
    "data profile": (
        "features.commands:data_profile_command",
        "Say what is in a log; write a page with plots.",
    ),
    "nightly": (
        "training.commands:nightly_command",
        "Retrain, prove against the live bundle, publish or refuse.",
    ),
    "train": (
        "training.commands:train_command",
        "Only train: write a night's evaluated bundle, by several processes if you like.",
    ),
    "train replay": (
        "training.commands:train_replay_command",
        "Make a step again at which a training diverged.",
    ),
    "plan": (
        "training.commands:plan_command",
        "Say whether embedding tables fit on so many GPUs, and how they would be spread.",
    ),
    "evaluate": ("training.report_commands:evaluate_command", "Score a frozen bundle on later days."),
    "serve": ("serving.commands:serve_command", "Answer Recommend and Rank over gRPC."),
    "recommend": ("serving.commands:recommend_command", "Ask a running server and print the ranked list."),
    "bundle list": (
        "training.bundle_commands:bundle_list_command",
        "List bundle versions and their verdicts.",
    ),
    "bundle show": (
        "training.bundle_commands:bundle_show_command",
        "Print one bundle's manifest and record.",
    ),
    "bundle verify": (
        "training.bundle_commands:bundle_verify_command",
        "Check hashes and reproduce golden requests.",
    ),
    "bundle activate": ("training.bundle_commands:bundle_activate_command", "Make a version live."),
    "bundle rollback": (
        "training.bundle_commands:bundle_rollback_command",
        "Make the version before the live one live.",
    ),
    "bundle pin": ("training.bundle_commands:bundle_pin_command", "Keep a version until it is unpinned."),
    "bundle unpin": ("training.bundle_commands:bundle_unpin_command", "Let a pinned version go."),
    "runs list": ("training.run_commands:runs_list_command", "List nights and updates, and how they ended."),
    "runs show": (
        "training.run_commands:runs_show_command",
        "Say what became of a night, by whom, and what it was made with.",
    ),
    "runs diff": ("training.run_commands:runs_diff_command", "List what differs between two nights."),
    "report ab": ("training.report_commands:report_ab_command", "Compare two bundles on the same days."),
    "report transfer": (
        "training.report_commands:report_transfer_command",
        "Say per head whether training with the others helps or hurts.",
    ),
    "tune fusion": (
        "training.report_commands:tune_fusion_command",
        "Search the weights of the score on days that a bundle has not seen.",
    ),
    "tune model": (
        "training.report_commands:tune_model_command",
        "Search learning rates, trunk and weights of losses on validation days.",
    ),
    "bench serve": (
        "benchmarks.serve_commands:bench_serve_command",
        "Measure a server on a synthetic bundle of a million items, or on a live bundle.",
    ),
    "bench store": ("benchmarks.speed_commands:bench_store_command", "Measure the online stores."),
    "bench item-item": (
        "benchmarks.speed_commands:bench_item_item_command",
        "Measure building item-item weights, and scoring by them.",
    ),
    "bench features": (
        "benchmarks.speed_commands:bench_features_command",
        "Measure the building of features beside DuckDB and pandas.",
    ),
    "bench train": (
        "benchmarks.speed_commands:bench_train_command",
        "Measure training, beside peers and an earlier commit.",
    ),
    "bench gpu-inputs": (
        "benchmarks.speed_commands:bench_gpu_inputs_command",
        "Write what benchmarks/gpu.sh reads on a machine with a GPU.",
    ),
    "bench lists": (
        "benchmarks.shop_commands:bench_lists_command",
        "Value lists by the simulated shop's truth, and offline metrics against it.",
    ),
    "bench loop": (
        "benchmarks.shop_commands:bench_loop_command",
        "Run nights that learn from the lists they serve, by the simulated shop's truth.",
    ),
    "bench nights": (
        "benchmarks.shop_commands:bench_nights_command",
        "Compare warm and cold nights, ways to teach a new head, and updates during the day.",
    ),
    "bench nightly": (
        "benchmarks.shop_commands:bench_nightly_command",
        "Measure nights: killed ones, the gate, stages by size, rollbacks, four weeks on end.",
    ),
    "bench trunks": (
        "benchmarks.speed_commands:bench_trunks_command",
        "Measure every trunk's step at one number of parameters.",
    ),
    "bench quality": (
        "benchmarks.quality_commands:bench_quality_command",
        "Compare our models with simple ones on a public set, by its published protocol.",
    ),
    "bench inside": (
        "benchmarks.quality_commands:bench_inside_command",
        "Say what orders the rows of a list: the user's part, and what each input adds.",
    ),
    "bench tables": (
        "benchmarks.quality_commands:bench_tables_command",
        "Write the tables of the benchmark pages anew, from their JSON.",
    ),
    "bench offpolicy": (
        "benchmarks.shop_commands:bench_offpolicy_command",
        "Hold off-policy estimates against known truths: bias, variance, coverage.",
    ),
    "bench balancing": (
        "benchmarks.speed_commands:bench_balancing_command",
        "Compare the balancing methods: losses under a planted conflict, cost per step.",
    ),
}
GROUPS: dict[str, tuple[str, ...]] = {
    "See it work": ("demo",),
    "Data": ("simulate", "convert", "data"),
    "Nights and bundles": ("nightly", "train", "plan", "evaluate", "bundle", "runs"),
    "Serving": ("serve", "recommend"),
    "Reports and searches": ("report", "tune"),
    "Benchmarks, in a checkout": ("bench",),
}
"""The overview's headings, and the first words of their commands."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 2 wrong usage, 130 interrupted, else the error's own code."""
    try:
        code = run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:  # `recsys … | head` has read enough; what is still to be written goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def run(argv: list[str]) -> int:
    """Run one command and return its exit code."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    wants_help = len(argv) == 2 and argv[1] in ("-h", "--help") and argv[0] not in COMMANDS
    if wants_help and any(n.startswith(f"{argv[0]} ") for n in COMMANDS):
        print(_overview(argv[0]))
        return 0
    name = next((n for n in (" ".join(argv[:2]), argv[0]) if n in COMMANDS), None)
    if name is None:
        print(f"recsys: unknown command {' '.join(argv[:2])!r}\n\n{_overview(argv[0])}", file=sys.stderr)
        return 2
    try:
        return _invoke(name, argv[len(name.split()) :])
    except RecsysError as error:
        print(f"recsys {name}: {error}", file=sys.stderr)
        return error.exit_code
    except NotADirectoryError as error:
        print(
            f"recsys {name}: {error.filename}: a part of this path is a file, not a folder; name a folder",
            file=sys.stderr,
        )
        return ConfigError.exit_code
    except KeyboardInterrupt:
        print(f"recsys {name}: interrupted; nothing half-written stays, run it again", file=sys.stderr)
        return INTERRUPTED


def parser_of(name: str) -> Any:
    """Make a command's parser; a function's annotations are its options.

    Raises: ConfigError for a benchmark outside a checkout.
    """
    import typer

    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(_function(name))
    return typer.main.get_command(app)


def _invoke(name: str, arguments: list[str]) -> int:
    parser = parser_of(name)
    # standalone_mode=False leaves our own errors and Ctrl-C to `run`; usage errors are printed below.
    try:
        result = parser.main(args=arguments, prog_name=f"recsys {name}", standalone_mode=False)
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # click's UsageError family
            print(f"recsys {name}: {_usage(error)} (see `recsys {name} --help`)", file=sys.stderr)
            return int(error.exit_code)
        if type(error).__name__ == "Abort":
            raise KeyboardInterrupt from error
        raise
    if result == INTERRUPTED:  # typer turns Ctrl-C into this exit code
        raise KeyboardInterrupt
    return int(result) if isinstance(result, int) else 0


def _usage(error: Any) -> str:
    """Return the sentence of a usage error with the value, which pydantic leaves out."""
    text: str = error.format_message().replace("Value error, ", "")
    if not hasattr(error.__cause__, "errors"):
        return text
    value = str(error.__cause__.errors()[0]["input"])
    return text if value in text else f"{text}, not {value}"


def _function(name: str) -> Callable[..., Any]:
    """Import a command's function.

    Raises: ConfigError for a benchmark outside a checkout: the installed package does not hold them.
    """
    module, function = COMMANDS[name][0].split(":")
    if module.startswith("benchmarks."):
        checkout = Path(__file__).resolve().parents[1]
        if not (checkout / "benchmarks").is_dir():
            raise ConfigError(
                "benchmarks are not part of the installed package; "
                "clone the repository, run `make setup` there and use its `recsys`"
            )
        # An editable install maps the packages of the wheel alone.
        if str(checkout) not in sys.path:
            sys.path.append(str(checkout))
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _overview(prefix: str = "") -> str:
    groups = {title: (prefix,) for title, words in GROUPS.items() if prefix in words} or GROUPS
    lines = ["usage: recsys COMMAND [OPTIONS]", ""]
    for title, words in groups.items():
        lines += [title]
        lines += [f"  {n:<17}{text}" for n, (_, text) in COMMANDS.items() if n.split()[0] in words]
        lines += [""]
    return "\n".join([*lines, "recsys COMMAND --help says more."])
