"""Raw files of any source -> an interaction log: a data set that we know, or a user's own files."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from features.progress import share_bar
from features.sources import FORMS, SOURCES
from features.sources.conversion import SUMMARY, ConversionSummary, Converter
from features.sources.mapped.convert import convert_mapped
from features.sources.mapped.mapping import load_mapping
from features.sources.mapped.suggest import CONFIG, suggest_config
from recsys.errors import ConfigError
from recsys.log import InteractionLog
from recsys.resolve import resolve


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion wrote, and the config that a night on the log can start from."""

    summary: ConversionSummary
    config: Path
    night: date
    """Of a first night: the log's last day, or the end of its last whole period."""


def convert_set(source: str, src: Path, out: Path, *, force: bool) -> Converted:
    """Convert a data set that has a converter of its own, with a progress bar.

    Raises: ConfigError for an unknown source, or a folder in use without `force`; DataError for bad files.
    """
    converter = load_source(source)
    _require_fresh(out, force=force)
    with share_bar(f"convert {source}") as step:
        summary = converter(src, InteractionLog(out), step=step)
    return Converted(summary, Path(SOURCES[source].config), summary.last_day)


def convert_own(form: str, src: Path, out: Path, mapping_file: Path, *, name: str, force: bool) -> Converted:
    """Convert a user's own files as a mapping describes them, with a progress bar; suggest a config.

    Args: name: of these files in the log; files under other names stay.
    Raises: ConfigError for a bad mapping or name, or a folder in use without `force`; DataError for bad rows.
    """
    mapping = load_mapping(mapping_file)
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"--name {name!r}: use letters, digits, - and _; it becomes a file name")
    # A log that holds other conversions takes one more under a new name.
    if name == form or (out / f"{SUMMARY}.{name}.json").exists():
        _require_fresh(out, force=force)
    log = InteractionLog(out)
    with share_bar(f"convert {form}") as step:
        summary = convert_mapped(src, log, mapping, form=form, name=name, step=step)
    config, night = out / CONFIG, summary.last_day
    if not config.exists() or force:
        suggested = suggest_config(log, mapping)
        config.write_text(suggested.text, encoding="utf-8")
        night = suggested.night
    return Converted(summary, config, night)


def load_source(name: str) -> Converter:
    """Import the converter of a source.

    Raises: ConfigError listing the known sources.
    """
    if name not in SOURCES:
        raise ConfigError(f"unknown source {name!r}; known: {', '.join((*FORMS, *SOURCES))}")
    converter: Converter = resolve(SOURCES[name].converter)
    return converter


def _require_fresh(out: Path, *, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder")
    if out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()) and not force:
        raise ConfigError(
            f"--out {out} is not empty; give a new folder, or --force to replace this source's files in it"
        )
