"""The table of stages: a config key reruns exactly the stages that read it.

Hashes are made by the function that names the stages' folders. For what a stage takes from another stands
that one's hash, so a change goes through the whole table without training anything.
"""

import inspect
from datetime import date
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from recsys.bundle import CONFIG_KEYS
from recsys.config import RunConfig, parse_config
from recsys.config_view import values, view
from recsys.stages import digest
from training.host_choice import HostChoice
from training.night.stages import STAGES
from training.night.step import hashed, identity

BEGIN = {
    "champion": "v0", "previous": "v0", "anchor": "v1", "began": 0.0, "pointed": None, "seconds": {},
    "user_key": None,
}  # fmt: skip
WRITING = {"ingest", "check_files", "record", "curves", "publish", "page", "collect"}
"""Stages that run every night and keep no folder of their own."""
OTHER: dict[str, Any] = {
    "timezone": "Asia/Shanghai",
    "period": "P1W",
    "tasks.name": "tapped",
    "tasks.feedback": "tap",
    "tasks.reversal": "untap",
    "tasks.head": "regression",
    "tasks.space": "observed",
    "tasks.parent": "purchase",
    "tasks.loss": "focal",
    "tasks.transfer_from": "click",
    "tasks.debias": "ips",
    "tasks.low": 0.5,
    "tasks.hidden": (16,),
    "attributes.kind": "multi_hot",
    "attributes.entity": "user",
    "attributes.name": "brand",
    "calibration": {"binary": "isotonic"},
    "tune.space": {"training.learning_rate": {"low": 0.1, "high": 0.2}},
    "validation.severity": {"drift": "error"},
    "validation.accept": ("drift",),
    "chosen.model_days": (date(2026, 1, 1),),
    "chosen.fusion_days": (date(2026, 1, 1),),
    "fusion.weights": {"click": 2.0},
    "fusion.offsets": {"click": 2.0},
    "retrieval.task": "purchase",
    "training.processes": 2,
    "training.sharding": {"item_id": "row_wise"},
    "store.tls_ca_file": Path("ca.pem"),
    "store.tls_cert_file": Path("cert.pem"),
    "store.tls_key_file": Path("key.pem"),
}
"""Another value of keys whose type does not give one."""


def keys_of(model: type[BaseModel], path: str = "") -> dict[str, Any]:
    """List every key with its type; a section or a list of tables is its keys."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is not None and f"{path}{name}" not in OTHER:
            found |= keys_of(inner, f"{path}{name}.")
        else:
            found[f"{path}{name}"] = field.annotation
    return found


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    args = get_args(annotation)
    return _model_in(args[0]) if get_origin(annotation) is tuple and args else None


def other_value(key: str, annotation: Any, value: Any) -> Any:
    """Give a value that differs; the config is not validated again: hashes are of values."""
    if key in OTHER:
        return OTHER[key]
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(a for a in get_args(annotation) if a is not type(None))
    if get_origin(annotation) is Literal:
        return next(choice for choice in get_args(annotation) if choice != value)
    if isinstance(value, bool) or annotation is bool:
        return not value
    if isinstance(value, tuple) or get_origin(annotation) is tuple:
        turned = tuple(reversed(value or ()))
        return turned if turned != (value or ()) else (*turned, *(turned or ("other",)))
    if isinstance(value, str) or annotation is str:
        return f"{value}x"
    return (value or 0) + 1


def changed(model: Any, names: list[str], value: Any) -> Any:
    """Give a copy with one key changed, of every entry in a list of tables."""
    if isinstance(model, tuple):
        return tuple(changed(entry, names, value) for entry in model)
    name, *rest = names
    return model.model_copy(update={name: changed(getattr(model, name), rest, value) if rest else value})


def read(config: Any, names: list[str]) -> Any:
    """Read a key, of the first entry in a list of tables."""
    for name in names:
        config = getattr(config[0] if isinstance(config, tuple) else config, name)
    return config


def hashes(config: RunConfig) -> dict[str, str]:
    """Name each stage's folder, taking for each input the name of the stage that makes it."""
    made: dict[str, Any] = dict(BEGIN)
    found = {}
    for stage in STAGES:
        found[stage.name] = digest(hashed(stage, config, {name: made[name] for name in stage.inputs}))
        if stage.output is not None:
            made[stage.output] = found[stage.name]
    return found


def declared(key: str) -> set[str]:
    """List the stages that declare a key, and those that take what these make."""
    found: set[str] = set()
    outputs: set[str] = set()
    for stage in STAGES:
        reads = any(key == k or key.startswith(f"{k}.") for k in stage.keys)
        if reads or outputs & set(stage.inputs):
            found.add(stage.name)
            outputs |= {stage.output} if stage.output else set()
    return found


KEYS = keys_of(RunConfig)


@pytest.fixture
def config(make_config):
    return make_config()


def test_every_section_has_keys_here():
    assert {key.split(".")[0] for key in KEYS} == set(RunConfig.model_fields)
    assert len(KEYS) > 100


@pytest.mark.parametrize("key", sorted(KEYS))
def test_a_key_reruns_exactly_the_stages_that_read_it(config, key):
    names = key.split(".")
    value = other_value(key, KEYS[key], read(config, names))
    assert value != read(config, names)
    before, after = hashes(config), hashes(changed(config, names, value))
    assert {name for name in before if before[name] != after[name]} == declared(key)


def test_what_matters_by_hand():
    """The declarations themselves: a feature retrains, a port, a poll and a shard do nothing."""
    assert {"train", "bundle", "evaluate", "gate", "refit"} <= declared("attributes.dim")
    assert "features" not in declared("attributes.dim")
    assert {"features", "validate", "plan", "train"} <= declared("features.daily_cap")
    assert declared("gate.margin") & {"train", "bundle", "evaluate"} == set()
    assert "gate" in declared("gate.margin")
    assert {"train", "features"} & declared("calibration") == set()
    assert {"bundle", "evaluate", "gate"} <= declared("calibration")
    for key in ("serving.listen", "serving.poll_s", "execution.shards", "policy.epsilon", "tune.rungs",
                "training.threads"):  # fmt: skip
        assert declared(key) == set(), key
    assert declared("store.url") == {"publish", "page"}


def test_a_version_depends_on_no_host(config):
    data = config.model_dump(mode="json", by_alias=True)
    data["serving"] |= {"listen": "0.0.0.0:1", "admin_listen": "127.0.0.1:2", "poll_s": 9.0, "threads": 4}
    data["store"] |= {"url": "redis://elsewhere:6379/0"}
    data["execution"] |= {"shards": 3, "workers": 2, "executor": "ray"}
    other = parse_config(data, "other")
    assert other != config
    ours, theirs = (values(view(c, "a bundle", CONFIG_KEYS)) for c in (config, other))
    assert ours == theirs
    kept = [stage.name for stage in STAGES if stage.name not in WRITING]
    assert [hashes(config)[name] for name in kept] == [hashes(other)[name] for name in kept]


def test_a_version_depends_on_the_recorded_choice_not_on_who_made_it(make_config):
    (stage,) = (s for s in STAGES if s.name == "train")

    def name(choice, **training):
        inputs = dict.fromkeys(stage.inputs, "x") | {"choice": identity(choice)}
        return digest(hashed(stage, make_config(training=training), inputs))

    measured = name(HostChoice(precision="bf16", processes=2), precision="auto", processes="auto")
    assert measured == name(HostChoice(precision="bf16", processes=2), precision="bf16", processes=2)
    assert measured != name(HostChoice(precision="bf16"), precision="auto", processes="auto")


def test_stages_take_what_they_declare():
    names = [stage.name for stage in STAGES]
    assert len(set(names)) == len(names)
    known = set(BEGIN)
    for stage in STAGES:
        arguments = inspect.signature(stage.run).parameters
        assert tuple(arguments)[1:] == stage.inputs, stage.name
        assert set(stage.inputs) <= known, f"{stage.name} takes what is not made yet"
        if stage.output:
            assert stage.output not in known, f"{stage.output} is made twice"
            known.add(stage.output)
