"""What the commands share: one reader of dates, one way to put out JSON, the same option everywhere."""

import json

import pytest
from pydantic import BaseModel

from recsys import cli
from recsys.options import STANDARD_OUTPUT, put_json


class Report(BaseModel):
    title: str
    loss: float


@pytest.mark.parametrize("value", [{"title": "Süß", "loss": 1.5}, Report(title="Süß", loss=1.5)])
def test_a_file_and_standard_output_get_the_same_json(value, tmp_path, capsys):
    place, shown = tmp_path / "report.json", []
    put_json(value, place, lambda: shown.append("file"))
    assert shown == ["file"], "a file comes beside the tables"
    assert capsys.readouterr().out == ""
    put_json(value, STANDARD_OUTPUT, lambda: shown.append("-"))
    assert shown == ["file"], "a program reads standard output: no tables in it"
    written = place.read_text()
    assert capsys.readouterr().out == written
    assert json.loads(written) == {"title": "Süß", "loss": 1.5}
    put_json(value, None, lambda: shown.append("none"))
    assert shown == ["file", "none"]
    assert list(tmp_path.iterdir()) == [place]


def _parameters():
    """Give (command, parameter) for everything that a command takes."""
    for name in cli.COMMANDS:
        for parameter in cli.parser_of(name).params:
            yield name, parameter


def _with(option):
    return [name for name, parameter in _parameters() if option in parameter.opts]


def _needed(name, option):
    """Give a command's required arguments, but for one."""
    argv = []
    for parameter in cli.parser_of(name).params:
        if parameter.required and option not in parameter.opts:
            argv += [parameter.opts[0]] if parameter.opts[0].startswith("-") else []
            argv += ["2026-01-01" if parameter.metavar == "YYYY-MM-DD" else "1"]
    return argv


@pytest.mark.parametrize("option", ["--date", "--from", "--to", "--labels-until"])
def test_every_command_reads_dates_alike(option, capsys):
    names = _with(option)
    assert names
    for name in names:
        assert cli.run([*name.split(), *_needed(name, option), option, "30.1.2026"]) == 2
        said = f"recsys {name}: Invalid value for '{option}': '30.1.2026' is no date; write YYYY-MM-DD"
        assert capsys.readouterr().err.startswith(said)
