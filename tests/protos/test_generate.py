from pathlib import Path

from protos import generate
from protos.recsys.v1 import admin_pb2, ranking_pb2


def test_the_committed_stubs_are_those_of_the_proto_files() -> None:
    assert generate.stale_stubs() == []


def test_check_exits_0_when_nothing_is_stale(capfd) -> None:
    assert generate.main(["--check"]) == 0
    assert capfd.readouterr().err == ""


def test_every_message_and_field_is_commented() -> None:
    for source in generate._sources():
        previous = ""
        for number, line in enumerate(source.read_text().splitlines(), start=1):
            text = line.strip()
            declares = text.endswith(("{", "{}", ";")) and not text.startswith(
                ("//", "syntax", "package", "import")
            )
            assert not declares or previous.startswith("//"), f"{source.name}:{number} has no comment"
            previous = text


def test_field_numbers_stay() -> None:
    """A number that moves breaks every client in the field: add new fields with new numbers only."""
    expected = Path(__file__).with_name("field_numbers.txt").read_text().splitlines()
    assert set(expected) <= set(field_numbers())


def field_numbers() -> list[str]:
    lines = []
    for module in (ranking_pb2, admin_pb2):
        pending = list(module.DESCRIPTOR.message_types_by_name.values())
        while pending:
            message = pending.pop()
            lines += [f"{message.full_name}.{f.name} = {f.number}" for f in message.fields]
            pending += message.nested_types
    return sorted(lines)
