"""Commands of the features room: convert, data validate, data features, data profile."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from features.definitions import read_config
from features.sources import FORMS, SOURCES
from recsys.errors import ConfigError
from recsys.options import (
    ConfigOption,
    DateOption,
    JsonOption,
    LogOption,
    StagesOption,
    put_json,
)

if TYPE_CHECKING:
    from features.sources.to_log import Converted


SourceArgument = Annotated[
    str,
    typer.Argument(
        help=f"Your own files: {', '.join(FORMS)}. Or a data set, with the folder of its files, gzipped "
        f"or not. {'; '.join(f'{name}: {s.files}' for name, s in SOURCES.items())}."
    ),
]
SrcArgument = Annotated[
    Path | None,
    typer.Argument(help="A file, folder or quoted pattern; for a data set the folder of its files."),
]
MapOption = Annotated[
    Path | None,
    typer.Option("--map", metavar="FILE", help="csv, parquet: the TOML that says which column is what."),
]
NameOption = Annotated[
    str | None,
    typer.Option(
        help="csv, parquet: name of these files in the log; others already there stay. Default: the form."
    ),
]


def convert_command(
    source: SourceArgument,
    src: SrcArgument = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="The log's folder; made if it is not there."),
    ] = None,
    mapping: MapOption = None,
    name: NameOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace this source's files in a log that is there already.")
    ] = False,
    example_map: Annotated[
        bool, typer.Option("--example-map", help="Print an example mapping with every key, and stop.")
    ] = False,
) -> None:
    """Turn your own files, or a public data set, into an interaction log.

    csv and parquet read what the mapping describes: `recsys convert csv --example-map > mapping.toml`.
    """
    from features.sources.mapped.mapping import EXAMPLE
    from features.sources.summary_table import print_next, print_summary

    if example_map:
        print(EXAMPLE.read_text(encoding="utf-8"), end="")
        return
    if src is None or out is None:
        raise ConfigError(f"convert {source} needs SRC and --out: recsys convert {source} SRC --out LOG")
    converted = _convert(source, src, out, mapping, name, force=force)
    print_summary(converted.summary, out)
    print_next(out, converted)


def _convert(
    source: str, src: Path, out: Path, mapping: Path | None, name: str | None, *, force: bool
) -> "Converted":
    """Convert a data set by name, or the user's own files by a mapping; without one, show an example."""
    from features.sources.mapped.mapping import EXAMPLE
    from features.sources.to_log import convert_own, convert_set

    if source not in FORMS:
        if source in SOURCES and (mapping is not None or name is not None):
            raise ConfigError(f"--map and --name are for {' and '.join(FORMS)}; {source} knows its files")
        return convert_set(source, src, out, force=force)
    if mapping is None:
        print(EXAMPLE.read_text(encoding="utf-8"), end="")
        raise ConfigError(
            f"convert {source} needs --map FILE, which says which column of your files is what. The example "
            f"above has every key: recsys convert {source} --example-map > mapping.toml"
        )
    return convert_own(source, src, out, mapping, name=name or source, force=force)


def data_validate_command(
    log: LogOption,
    day: DateOption,
    config: ConfigOption = None,
    runs: StagesOption = None,
    json_file: JsonOption = None,
) -> None:
    """Check one day's data as a night would: files, rules, volume, hours, labels, ids, nulls, drift, bots.

    Ends with code 3 when a night would stop.
    """
    from features.validation.ingest import require_sound
    from features.validation.one_day import validate_day
    from features.validation.report import print_findings, write_report
    from recsys.log import InteractionLog

    settings = read_config(config)
    with ExitStack() as stack:
        folder = runs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recsys-validate-")))
        validation = validate_day(InteractionLog(log), day, settings, folder)
        report = write_report(validation, folder / "reports")
        put_json(validation.to_json(), json_file, lambda: print_findings(validation))
    require_sound(validation, str(json_file or (report if runs else "--json FILE writes it")))


def data_features_command(config: ConfigOption = None, json_file: JsonOption = None) -> None:
    """List every feature with its entity, kind, freshness, and the columns it is computed from."""
    from features.listing import list_features, print_features

    rows = list_features(read_config(config))
    put_json(rows, json_file, lambda: print_features(rows))


def data_profile_command(
    log: Annotated[Path, typer.Argument(help="The log's folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Write profile.html and profile.json here.")
    ] = None,
    json_file: JsonOption = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="The config that the log is for; default: the log's config.toml, or else the shop's.",
        ),
    ] = None,
) -> None:
    """Describe a log: counts, rates, sparsity, gaps, and findings with remedies."""
    from features.profile.profile_log import profile_log
    from features.profile.render import print_profile, write_profile
    from recsys.settings import read_toml

    if config is None and (log / "config.toml").is_file():
        config = log / "config.toml"
    name = "the shop's config" if config is None else str(config)
    # `convert` writes a config without a head beside a log without feedback: the profile tells why.
    headless = config == log / "config.toml" and "task" not in read_toml(config, "the config", "restore it")
    profile = profile_log(log, None if headless else read_config(config), name)
    written = [] if out is None else write_profile(profile, name, out)
    put_json(profile, json_file, lambda: print_profile(profile, written))
