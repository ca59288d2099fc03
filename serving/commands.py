"""`recsys serve` and `recsys recommend`."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.config import load_config
from recsys.errors import ConfigError
from serving.client_values import Answer
from serving.clock import clock_from

if TYPE_CHECKING:
    from serving.app import Server


def serve_command(
    config: Annotated[Path, typer.Option(help="The run's TOML file.")],
    log: Annotated[
        Path, typer.Option(help="Interaction log; the journal is written into its folder `journal`.")
    ],
    runs: Annotated[Path, typer.Option(help="Folder of bundles, registry and store.")],
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT of the ranking service; port 0 takes a free one.")
    ] = None,
    admin_listen: Annotated[str | None, typer.Option(help="HOST:PORT of the admin service.")] = None,
    port_file: Annotated[
        Path | None, typer.Option(help="Write the bound ports here, as JSON, when ready.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow a non-loopback address without TLS.")
    ] = False,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM certificate of the server.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM key of the server.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="Callers must show a certificate signed by this.")
    ] = None,
    reflection: Annotated[
        bool, typer.Option("--reflection", help="Let tools ask for the services' schema.")
    ] = False,
    metrics_listen: Annotated[str | None, typer.Option(help="HOST:PORT of a Prometheus endpoint.")] = None,
    clock_start: Annotated[
        str | None,
        typer.Option(help="Simulated clock: starts at this ISO instant (demos, replays)."),
    ] = None,
    clock_rate: Annotated[
        float, typer.Option(help="Simulated seconds that pass in a real one; needs --clock-start.")
    ] = 1.0,
) -> None:
    """Answer Recommend and Rank over gRPC, until SIGTERM or Ctrl-C; both drain."""
    from serving.app import Server, ServerOptions
    from serving.json_logs import configure_logs

    configure_logs()
    settings = load_config(config)
    server = Server(
        ServerOptions(
            config=settings,
            log=log,
            runs=runs,
            clock=clock_from(clock_start, clock_rate),
            listen=listen or settings.serving.listen,
            admin_listen=admin_listen or settings.serving.admin_listen,
            insecure=insecure,
            tls=_tls(tls_cert, tls_key, tls_client_ca),
            reflection=reflection or settings.serving.reflection,
            metrics_listen=metrics_listen,
        )
    )
    server.start()
    server.run_until_signalled(lambda: _announce(server, port_file))


def recommend_command(
    target: Annotated[str, typer.Option(help="HOST:PORT of a running server.")],
    user: Annotated[str, typer.Option(help="The user to recommend to; an unknown one gets a cold answer.")],
    k: Annotated[int, typer.Option("-k", help="How many items.")] = 10,
    similar_to: Annotated[str, typer.Option(help="Items similar to this item id instead.")] = "",
    context: Annotated[list[str] | None, typer.Option(help="name=value, as often as needed.")] = None,
    category: Annotated[
        list[str] | None, typer.Option(help="Only this category, as often as needed.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Deadline in seconds.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
    log: Annotated[bool, typer.Option(help="Whether the server logs this request as real traffic.")] = False,
) -> None:
    """Ask a running server and print the ranked list."""
    from serving.client import RecsysClient

    with RecsysClient(target, timeout_s=timeout) as client:
        answer = client.recommend(
            user,
            k,
            seed_item_id=similar_to,
            context=_context(context or []),
            filter={"categories": category or []},
            debug={"do_not_log": not log, "explain": True},
        )
    if as_json:
        print(json.dumps(asdict(answer), ensure_ascii=False, indent=1))
    else:
        _print_table(answer, user)


def _bundle_line(server: "Server") -> str:
    if server.recommender.version is not None:
        return f"bundle {server.recommender.version}"
    why = f" ({server.reloader.error})" if server.reloader.error else ""
    return f"no bundle: the popular list answers{why}"


def _print_table(answer: Answer, user: str) -> None:
    from rich.console import Console
    from rich.table import Table

    heads = sorted({task for item in answer.items for task in item.predictions})
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("#", "title", "score", *heads, "reasons"):
        table.add_column(name, justify="right" if name in ("#", "score", *heads) else "left")
    for item in answer.items:
        predictions = [f"{item.predictions[task]:.4f}" for task in heads]
        reasons = "\n".join(item.reasons)
        table.add_row(
            str(item.position), item.title or item.item_id, f"{item.score:.4f}", *predictions, reasons
        )
    console = Console()
    console.print(table)
    degraded = f", degraded: {', '.join(answer.degradation)}" if answer.degradation else ""
    missing = f", unknown: {', '.join(answer.missing_item_ids)}" if answer.missing_item_ids else ""
    version = answer.bundle_version or "no bundle"
    if answer.known_user is False and not answer.degradation:
        console.print(f"nothing is known of user {user!r}: a list for newcomers", style="yellow")
    console.print(
        f"{len(answer.items)} items, {version}, {1000 * answer.server_s:.1f} ms{degraded}{missing}",
        style="dim",
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


def _tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> Any:
    from serving.listen import Tls

    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("--tls-cert and --tls-key go together; give both, or neither")
    return Tls(certificate=certificate, key=key, client_ca=client_ca)


def _announce(server: "Server", port_file: Path | None) -> None:
    if port_file is not None:
        _write_ports(port_file, server.port, server.admin_port)
    print(
        f"recsys serve: port {server.port}, admin port {server.admin_port}, {_bundle_line(server)}",
        flush=True,
    )


def _write_ports(path: Path, port: int, admin_port: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"port": port, "admin_port": admin_port}) + "\n")
    os.replace(temporary, path)
