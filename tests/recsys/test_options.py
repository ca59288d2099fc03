"""What the commands share: one reader of dates, one way to put out JSON, the same option everywhere."""

import errno
import json
import subprocess
import sys

import pytest
from pydantic import BaseModel

from recsys import cli
from recsys.options import STANDARD_OUTPUT, put_json, put_json_line


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


@pytest.mark.parametrize("value", [{"loss": float("nan")}, Report(title="", loss=float("nan"))])
def test_what_is_no_number_is_null(value, capsys):
    """NaN is no JSON: other programs could not read it."""
    put_json(value, STANDARD_OUTPUT, lambda: None)
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["loss"] is None


def test_several_results_are_a_line_each(tmp_path, capsys):
    place, shown = tmp_path / "nights.jsonl", []
    place.write_text("of an earlier run\n")
    for number in range(2):
        for target in (place, STANDARD_OUTPUT):
            put_json_line({"night": number}, target, lambda: shown.append(1), append=number > 0)
    assert place.read_text() == capsys.readouterr().out == '{"night":0}\n{"night":1}\n'
    assert len(shown) == 2


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


def test_a_range_without_a_colon_is_told_its_form(capsys):
    assert cli.run(["nightly", *_needed("nightly", "--backfill"), "--backfill", "2026-01-28"]) == 2
    assert "'2026-01-28' is no range; write A:B, like 2026-01-28:2026-01-30" in capsys.readouterr().err


def test_every_command_tests_the_place_of_json_before_the_work(tmp_path, capsys):
    names = _with("--json")
    assert len(names) > 15
    nowhere = tmp_path / "nowhere" / "x.json"
    for name in names:
        assert cli.run([*name.split(), *_needed(name, "--json"), "--json", str(nowhere)]) == 2
        said = (
            f"recsys {name}: Invalid value for '--json': there is no folder {nowhere.parent}; make it first"
        )
        assert capsys.readouterr().err.startswith(said)


def test_a_place_of_json_that_cannot_be_written(tmp_path, capsys, monkeypatch):
    assert cli.run(["data", "features", "--json", str(tmp_path)]) == 2
    assert "is a folder; name a file in it" in capsys.readouterr().err

    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("recsys.options.TemporaryFile", full)
    assert cli.run(["data", "features", "--json", str(tmp_path / "x.json")]) == 2
    assert "No space left on device; choose another file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_many_commands_take_is_one_option():
    """One help text and one form; an own one is a second way to learn."""
    for option, own in {"--json": 1, "--seed": 1, "--config": 4, "--log": 3, "--runs": 3}.items():
        said = {(p.metavar, p.help) for _, p in _parameters() if option in p.opts}
        assert 1 <= len(said) <= own, (option, said)


def test_no_command_needs_torch_to_say_how_it_is_used_nor_to_list_bundles(tmp_path):
    code = (
        "import sys\nfrom recsys import cli\n"
        "codes = {cli.run([*name.split(), '--help']) for name in cli.COMMANDS}\n"
        "codes.add(cli.run(['bundle', 'list', '--runs', sys.argv[1]]))\n"
        "heavy = {'torch', 'sklearn', 'faiss', 'grpc', 'optuna', 'ray'} & set(sys.modules)\n"
        "print('exit codes', codes, 'heavy', heavy)"
    )
    (tmp_path / "registry").mkdir()
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "exit codes {0} heavy set()"
