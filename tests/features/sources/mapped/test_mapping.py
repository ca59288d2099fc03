"""The mapping file: the example is whole, wrong keys are named with the known ones."""

import re
import tomllib

import pytest

from features.sources.mapped.mapping import EXAMPLE, Files, load_mapping, parse_mapping
from recsys.errors import ConfigError

EVENTS = {"user": "u", "item": "i", "kind": "k", "time": "t", "kinds": {"a": "click"}}


def refused(data, *parts):
    with pytest.raises(ConfigError) as caught:
        parse_mapping(data, "FILE")
    for part in ("FILE", *parts):
        assert part in str(caught.value), str(caught.value)


def uncommented() -> str:
    """Take the `# ` off every line of the example that is TOML, not prose."""
    setting = re.compile(r"# ((\[[a-z_.]+\]|[a-z_]+ = .+))")
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    return "\n".join(found[1] if (found := setting.fullmatch(line)) else line for line in lines)


def test_the_example_is_a_mapping():
    mapping = load_mapping(EXAMPLE)
    assert mapping.feedback_kinds == ["impression", "click", "purchase", "refund"]
    assert mapping.logs_impressions


def test_the_example_names_every_key_that_there_is():
    data = tomllib.loads(uncommented())
    events = dict(data["events"])
    both = {"item_columns": events.pop("item_columns"), "user_columns": events.pop("user_columns")}
    events.pop("columns")
    mapping = parse_mapping({**data, "events": events}, "FILE")
    parse_mapping({"events": {**EVENTS, **both}}, "FILE")
    assert mapping.events is not None
    known = set(type(mapping.events).model_fields) - {"only_kind", "item_columns", "user_columns", "columns"}
    assert known <= set(events) | {"only_kind"}
    for section in ("users", "items", "match", "negatives"):
        named = set(data[section])
        fields = set(type(getattr(mapping, section)).model_fields)
        files = set(Files.model_fields)
        assert fields - files <= named, section


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ({"event": {}}, ("event: unknown key", "events", "feedback", "timezone")),
        ({"events": {**EVENTS, "usr": "u"}}, ("events.usr: unknown key", "user", "only_kind")),
        ({"events": {"user": "u", "kind": "k", "time": "t"}}, ("events.item: is missing",)),
        (
            {"events": {**EVENTS, "item_columns": {"prize": "p"}}},
            ("item_columns.prize: unknown key", "price"),
        ),
        ({"events": {**EVENTS, "context": {"d": {"colum": "x"}}}}, ("colum: unknown key", "separator")),
        ({"events": {**EVENTS, "context": {"Dev": "d"}}}, ("events.context.Dev",)),
    ],
)
def test_an_unknown_key_lists_the_known(data, parts):
    refused(data, *parts)


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ({}, ("write [events]", "[feedback]")),
        ({"events": EVENTS, "feedback": EVENTS}, ("write [events]",)),
        (
            {"events": EVENTS, "impressions": {"user": "u", "item": "i", "time": "t"}},
            ("[impressions] goes with",),
        ),
        ({"feedback": {**EVENTS, "kinds": {"v": "impression"}}}, ("name the section [events]",)),
        ({"events": {**EVENTS, "kinds": {"v": "impression"}}}, ("no kind is feedback",)),
        ({"first_day": "2027-01-02", "last_day": "2027-01-01"}, ("is after last_day = 2027-01-01",)),
        ({"checks": {"accept": "days_apart"}}, ("checks.accept = 'days_apart'", "a list in brackets")),
        ({"events": {**EVENTS, "only_kind": "rating"}}, ("only_kind",)),
        ({"events": {k: v for k, v in EVENTS.items() if k != "kind"}}, ("only_kind",)),
        ({"events": {**EVENTS, "kinds": {"a": "Bought it"}}}, ("events.kinds.a = 'Bought it'",)),
        ({"events": {**EVENTS, "time_format": "seconds"}}, ("time_format = 'seconds'", "%Y")),
        ({"events": {**EVENTS, "time_zone": "Mars"}}, ("time_zone = 'Mars'", "Asia/Shanghai")),
        ({"events": EVENTS, "timezone": "Mars"}, ("timezone = 'Mars'",)),
        ({"events": EVENTS, "match": {"window": "soon"}}, ("match.window = 'soon'", "'2h'")),
        ({"events": EVENTS, "match": {"opens": ["like"]}}, ("opens ['like']", "click")),
        (
            {"events": {**EVENTS, "item_columns": {"title": "t"}}, "items": {"id": "i"}},
            ("[items] and [events.item_columns]", "keep one"),
        ),
    ],
)
def test_parts_that_do_not_fit_together(data, parts):
    refused(data, *parts)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the mapping .*nowhere\.toml.*--example-map"):
        load_mapping(tmp_path / "nowhere.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(ConfigError, match=r"bad\.toml is not valid TOML"):
        load_mapping(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("key", "first"), [("item", "user"), ("time", "user"), ("request", "item"), ("event", "item")]
)
def test_two_keys_of_one_column(key, first):
    column = EVENTS[first]
    refused({"events": {**EVENTS, key: column}}, f"{first} and {key} both name the column {column!r}")
    parse_mapping({"events": {**EVENTS, "request": "r", "impression": "r", "session": "u"}}, "FILE")
    parse_mapping({"events": {**EVENTS, "request": EVENTS["user"]}}, "FILE")  # one list of each session
