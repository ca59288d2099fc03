"""Commands of the serving room: serve, recommend, demo."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.config import RunConfig, load_config
from recsys.errors import ConfigError
from recsys.options import (
    ConfigOption,
    JsonOption,
    RequiredConfigOption,
    RunsOption,
    SeedOption,
    parse_workers,
    put_json,
)
from recsys.simulator.dials import ShopDials

if TYPE_CHECKING:
    from serving.addresses import Tls

_DIALS = ShopDials()
_MIN_DEMO_DAYS = 6


ServedLogOption = Annotated[
    Path,
    typer.Option(
        "--log", metavar="FOLDER", help="The interaction log; the journal goes into its folder `journal`."
    ),
]
ListenOption = Annotated[
    str | None, typer.Option(help="HOST:PORT of the ranking service; port 0 takes a free one.")
]
AdminListenOption = Annotated[
    str | None, typer.Option(help="HOST:PORT of the admin service; beyond loopback it needs --tls-client-ca.")
]
MetricsListenOption = Annotated[
    str | None,
    typer.Option(help="HOST:PORT of a Prometheus endpoint; beyond loopback it needs --tls-client-ca."),
]
PortFileOption = Annotated[Path | None, typer.Option(help="Write the bound ports here, as JSON, when ready.")]
InsecureOption = Annotated[bool, typer.Option("--insecure", help="Allow a non-loopback address without TLS.")]
TlsCertOption = Annotated[Path | None, typer.Option(help="PEM certificate of the server.")]
TlsKeyOption = Annotated[Path | None, typer.Option(help="PEM key of the server.")]
TlsClientCaOption = Annotated[
    Path | None, typer.Option(help="Callers must show a certificate signed by this.")
]
ReflectionOption = Annotated[
    bool, typer.Option("--reflection", help="Let tools ask for the services' schema.")
]
ClockStartOption = Annotated[
    str | None,
    typer.Option(
        help="Simulated clock (demos, replays): starts at this ISO instant once the server is ready; with "
        "several workers, when the command starts."
    ),
]
ClockRateOption = Annotated[
    float, typer.Option(help="Simulated seconds that pass in a real one; needs --clock-start.")
]


WorkersOption = Annotated[
    Any,
    typer.Option(
        metavar="auto|N",
        parser=parse_workers,
        help="Processes that answer; auto: as many as processors. Default: [serving] workers, which is 1.",
    ),
]


CheckOption = Annotated[
    str | None,
    typer.Option(
        "--check",
        metavar="VERSION",
        help="Serve nothing: load this version beside the live one, ask it, say whether it may go live.",
    ),
]


def serve_command(
    config: RequiredConfigOption,
    log: ServedLogOption,
    runs: RunsOption,
    listen: ListenOption = None,
    admin_listen: AdminListenOption = None,
    port_file: PortFileOption = None,
    insecure: InsecureOption = False,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_client_ca: TlsClientCaOption = None,
    reflection: ReflectionOption = False,
    workers: WorkersOption = None,
    metrics_listen: MetricsListenOption = None,
    clock_start: ClockStartOption = None,
    clock_rate: ClockRateOption = 1.0,
    check: CheckOption = None,
    json_file: JsonOption = None,
) -> int:
    """Answer Recommend and Rank over gRPC, until SIGTERM or Ctrl-C; both let running requests end.

    \b
    Exit codes:
        0  stopped by SIGTERM or Ctrl-C; calls in progress were answered
        1  a fault of the program; the log has a traceback
        2  a wrong option or config, or an address that cannot be bound
        6  the online store cannot be opened
       13  a worker ended again and again before the server was ready, or had to be killed at the end
       15  --check: a server does not answer with the version as it should
      130  Ctrl-C before the server was ready

    A restart cannot repair 2 (systemd: RestartPreventExitStatus=2).
    """  # noqa: D301 (\\b is a character that keeps the lines as they are)
    given = load_config(config)
    _require_folders(log, runs)
    if check is not None:
        return _check(config, given, log, runs, check, json_file)
    _refuse_json(json_file)
    settings = {
        **{"config_file": config, "config": given, "log": log, "runs": runs},
        "clock": {"start": clock_start, "rate": clock_rate},
        "listen": given.serving.listen if listen is None else listen,
        "admin_listen": given.serving.admin_listen if admin_listen is None else admin_listen,
        "insecure": insecure,
        "tls": _tls(tls_cert, tls_key, tls_client_ca),
        "reflection": reflection or given.serving.reflection,
        "metrics_listen": metrics_listen,
    }
    _serve(settings, workers, port_file)
    return 0


def _refuse_json(json_file: Path | None) -> None:
    if json_file is not None:
        raise ConfigError("--json is for --check VERSION; leave it out")


def _serve(settings: Mapping[str, Any], workers: Any, port_file: Path | None) -> None:
    """Serve until a signal. Args: settings: fields of `ServeSettings`; workers: None: as the config says."""
    from serving.addresses import require_different
    from serving.processes.announce import require_writable
    from serving.processes.orders import ClockSetting, ServeSettings
    from serving.processes.start import choose_workers, serve_with_workers

    clock = ClockSetting(**settings["clock"])
    given = ServeSettings(**{**settings, "clock": clock})
    require_different(given.addresses)
    require_writable(port_file)
    wanted = given.config.serving.workers if workers is None else workers
    count = choose_workers(wanted, *given.addresses.values())
    if count > 1:
        serve_with_workers(given, count, port_file)
        return
    from serving.processes.worker import serve_here

    serve_here(given, port_file)


def _check(
    config_file: Path, config: RunConfig, log: Path, runs: Path, version: str, json_file: Path | None
) -> int:
    """Let a server of its own answer with a version; give the exit code."""
    from serving.json_logs import configure_logs
    from serving.version_check import check_version, settings_of, show_check

    configure_logs()
    found = check_version(settings_of(config_file, config, log, runs), version)
    put_json(found.to_json(), json_file, lambda: show_check(found))
    return found.exit_code


def recommend_command(
    target: Annotated[str, typer.Option(help="HOST:PORT of a running server.")],
    user: Annotated[str, typer.Option(help="The user to recommend to; an unknown one gets a cold answer.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    similar_to: Annotated[str, typer.Option(help="Items similar to this item id instead.")] = "",
    context: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of the request; may be repeated.")
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option(help="Only items of this category; may be repeated.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Deadline in seconds.")] = 5.0,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print also where the scores come from.")
    ] = False,
    json_file: JsonOption = None,
    journal: Annotated[
        bool, typer.Option("--journal", help="Let the server write this request down as real traffic.")
    ] = False,
) -> None:
    """Ask a running server and print the ranked list."""
    from serving.client import RecsysClient
    from serving.console import print_answer, print_explanation

    def show() -> None:
        print_answer(answer, user, similar_to)
        if explain:
            print_explanation(answer)

    with RecsysClient(target, timeout_s=timeout) as client:
        answer = client.recommend(
            user,
            k,
            seed_item_id=similar_to,
            context=_context(context or []),
            filter={"categories": category or []},
            debug={"do_not_log": not journal, "explain": True},
        )
    put_json(asdict(answer), json_file, show)


def demo_command(
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FOLDER", help="The demo's folder; an earlier demo there is removed first."
        ),
    ] = Path("runs/demo"),
    seed: SeedOption = 0,
    config: ConfigOption = None,
    users: Annotated[int, typer.Option(hidden=True, min=10)] = _DIALS.users,
    items: Annotated[int, typer.Option(hidden=True, min=100)] = _DIALS.items,
    days: Annotated[int, typer.Option(hidden=True, min=_MIN_DEMO_DAYS)] = _DIALS.days,
    requests: Annotated[int, typer.Option(hidden=True, min=1)] = 1_500,
    evening_s: Annotated[float, typer.Option(hidden=True, min=1.0)] = 45.0,
) -> None:
    """Run the whole loop on the simulated shop, and report what the model is worth.

    Another seed makes another shop.
    """
    from serving.demo.run import run_demo

    dials = ShopDials(users=users, items=items, days=days)
    run_demo(out, config, seed=seed, dials=dials, requests=requests, evening_s=evening_s)


def _require_folders(log: Path, runs: Path) -> None:
    _require_folder("--log", log, "`recsys convert` or `recsys simulate`")
    _require_folder("--runs", runs, "`recsys nightly`")


def _require_folder(option: str, folder: Path, makers: str) -> None:
    """Refuse a mistyped folder: the server would make it, and answer with the popular list."""
    if not folder.is_dir():
        raise ConfigError(
            f"{option} {folder} is not a folder; name the one that {makers} wrote, or make an empty one to "
            f"serve without: mkdir -p {folder}"
        )


def _context(pairs: list[str]) -> dict[str, str | float]:
    values: dict[str, str | float] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise ConfigError(f"--context {pair!r} is not name=value; write --context device=mobile")
        values[name] = _number_or_text(text)
    return values


def _number_or_text(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> "Tls | None":
    from serving.addresses import Tls

    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("--tls-cert and --tls-key go together; give both, or neither")
    return Tls(certificate=certificate, key=key, client_ca=client_ca)
