"""Known keys are found through every form a section is declared in."""

import tomllib
from typing import Annotated

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from recsys.settings import explain, known_keys, to_toml


class Leaf(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = 1


class Root(BaseModel):
    model_config = ConfigDict(extra="forbid")
    plain: Leaf = Leaf()
    maybe: Leaf | None = None
    many: tuple[Leaf, ...] = Field(default=(), alias="leaf")
    named: dict[str, Leaf] = {}
    text: str = ""


def test_known_keys_of_every_form():
    for loc in (("plain",), ("maybe",), ("leaf", 0), ("named", "x")):
        assert known_keys(Root, loc) == ["size"], loc
    assert known_keys(Root, ()) == ["leaf", "maybe", "named", "plain", "text"]
    assert known_keys(Root, ("text",)) == known_keys(Root, ())


def test_every_mistake_is_explained():
    try:
        Root.model_validate({"named": {"x": {"sise": 1}}, "leaf": [{"size": "big"}], "text": 3})
    except ValidationError as error:
        said = explain(error, "FILE", Root)
    assert "FILE has 3 wrong setting(s)" in said
    assert "named.x.sise: unknown key; known here: size" in said
    assert "leaf.0.size = 'big'" in said
    assert "text = 3" in said


def _refuse(value):
    raise ValueError(f"{value!r} is no shade; known: red")


def test_a_validators_sentence_stands_alone():
    class Paint(BaseModel):
        colour: Annotated[str, AfterValidator(_refuse)]

    with pytest.raises(ValidationError) as wrong:
        Paint.model_validate({"colour": "rot"})
    assert explain(wrong.value, "FILE", Paint).endswith("\n  colour = 'rot': 'rot' is no shade; known: red")


def test_toml_that_is_written_is_the_toml_that_is_read() -> None:
    data = {
        "text": 'a "b" \\ ü\n',
        "yes": True,
        "tiny": 1.5e-07,
        "list": [1, 2],
        "empty": [],
        "section": {"x": 1, "deep": {"key.with.dots": {"low": 0.1}, "y": "z"}},
        "task": [{"name": "click", "hidden": [8]}, {"name": "buy", "more": {"z": 1}}],
    }
    assert tomllib.loads(to_toml({**data, "none": None})) == data
