"""TOML <-> a pydantic model, with errors a person can act on: file, key, value, known keys."""

import json
import tomllib
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from recsys.errors import ConfigError


def read_toml(path: Path, what: str, remedy: str) -> dict[str, object]:
    """Read a TOML file.

    Args: what, remedy: the file's name in a sentence ("the config"), and what to do when it is not there.
    Raises: ConfigError naming the file.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror}; {remedy}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def explain(
    error: ValidationError, where: str, model: type[BaseModel], renamed: Mapping[str, str] | None = None
) -> str:
    """List every wrong setting: its key, its value and what is wrong; for an unknown key the known ones.

    Args: renamed: old key -> new key, sections included; an unknown key among these is told its new name.
    """
    lines = [f"{where} has {error.error_count()} wrong setting(s):"]
    for issue in error.errors():
        key = ".".join(str(part) for part in issue["loc"]) or "(top level)"
        new = (renamed or {}).get(".".join(part for part in issue["loc"] if isinstance(part, str)))
        if issue["type"] == "extra_forbidden" and new is not None:
            lines.append(f"  {key} was renamed to {new}; write the new name")
        elif issue["type"] == "extra_forbidden":
            known = known_keys(model, issue["loc"][:-1])
            lines.append(f"  {key}: unknown key; known here: {', '.join(known)}")
        elif issue["type"] == "missing":
            lines.append(f"  {key}: is missing{_what_for(model, issue['loc'])}")
        elif issue["type"] in ("value_error", "model_type") and isinstance(issue["input"], dict):
            lines.append(f"  {key}: {_message(issue)}")
        else:
            lines.append(f"  {key} = {issue['input']!r}: {_message(issue)}")
    return "\n".join(lines)


def _what_for(model: type[BaseModel], loc: Sequence[int | str]) -> str:
    """Give what a missing key's field says of itself, where it says so."""
    fields = model.model_fields if len(loc) == 1 else {}
    said = [field.description for name, field in fields.items() if loc[0] in (name, field.alias)]
    return f"; {said[0]}" if said and said[0] else ""


def _message(issue: ErrorDetails) -> str:
    """Return what is wrong; pydantic puts "Value error" before a validator's sentence."""
    if issue["type"] in ("tuple_type", "list_type"):
        return 'write a list in brackets, like ["a", "b"]'
    return issue["msg"].removeprefix("Value error, ")


def known_keys(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """List the keys that the section at a path knows."""
    for part in loc:
        inner = next(
            (f.annotation for name, f in model.model_fields.items() if part in (name, f.alias)), None
        )
        model = _model_in(inner) or model
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the model in an annotation such as `tuple[TaskSpec, ...]` or `Items | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, dict, list, Union, types.UnionType, Annotated):
        return next((m for m in map(_model_in, get_args(annotation)) if m is not None), None)
    return None


def to_toml(data: Mapping[str, Any]) -> str:
    """Write JSON values as TOML: plain keys first, then tables, then lists of tables; None is left out."""
    return "\n".join(_lines(data, ())).lstrip("\n") + "\n"


def _lines(data: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    tables = {key: value for key, value in data.items() if isinstance(value, Mapping)}
    arrays = {
        key: value
        for key, value in data.items()
        if isinstance(value, list | tuple) and value and all(isinstance(v, Mapping) for v in value)
    }
    plain = {k: v for k, v in data.items() if k not in tables and k not in arrays and v is not None}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, table in tables.items():
        lines += ["", f"[{_name(path, key)}]", *_lines(table, (*path, key))]
    for key, rows in arrays.items():
        for row in rows:
            lines += ["", f"[[{_name(path, key)}]]", *_lines(row, (*path, key))]
    return lines


def _name(path: tuple[str, ...], key: str) -> str:
    return ".".join(_key(part) for part in (*path, key))


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)


def _value(value: Any) -> str:
    """Write a text, number, truth value or list of these; JSON's escapes of texts are TOML's too."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(v) for v in value)}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
