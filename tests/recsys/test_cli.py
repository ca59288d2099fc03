"""The command line: exit codes, help without torch, and names that exist."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recsys import cli
from recsys.errors import BundleError, ConfigError, DataError, RecsysError
from recsys.records import Verdict
from serving.client_values import CallError
from training.night.tries import HELD_IN_ROW_CODE


def _command(monkeypatch, run):
    """Make `recsys simulate` run a function of ours: the table of commands is strings."""
    monkeypatch.setitem(cli.COMMANDS, "simulate", ("fake_room:run", "Fake."))
    monkeypatch.setitem(sys.modules, "fake_room", type(sys)("fake_room"))
    sys.modules["fake_room"].run = run


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_the_overview_lists_every_command(argv, capsys):
    assert cli.run(argv) == 0
    out = capsys.readouterr().out
    for name, (_, text) in cli.COMMANDS.items():
        assert name in out
        assert text in out


@pytest.mark.parametrize("argv", [["simulat"], ["bundle"], ["bundle", "lst"], ["--version"], [""]])
def test_an_unknown_command_is_wrong_usage(argv, capsys):
    assert cli.run(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "unknown command" in captured.err


def test_an_unknown_command_of_a_group_lists_the_group(capsys):
    cli.run(["bundle", "lst"])
    err = capsys.readouterr().err
    assert "bundle rollback" in err
    assert "simulate" not in err


def test_a_file_where_a_folder_would_be_is_wrong_usage(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert cli.run(["runs", "list", "--runs", str(tmp_path / "file")]) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "file") in said
    assert "is a file, not a folder" in said


def test_a_log_without_feedback_is_not_sent_to_a_night_that_would_stop(tmp_path, capsys):
    (tmp_path / "events.csv").write_text("user,item,kind,time\nu,i,view,2026-01-01\n")
    kinds = '[events.kinds]\nview = "impression"\nclick = "click"\n'
    columns = 'user = "user"\nitem = "item"\nkind = "kind"\ntime = "time"\n'
    (tmp_path / "map.toml").write_text("[events]\n" + columns + kinds)
    src, mapping, log = (str(tmp_path / name) for name in ("events.csv", "map.toml", "log"))
    assert cli.run(["convert", "csv", src, "--map", mapping, "--out", log]) == 0
    said = capsys.readouterr().out
    assert "[no_feedback]" in said
    assert "recsys nightly" not in said


def test_a_mapping_does_not_hide_an_unknown_source(tmp_path, capsys):
    assert cli.run(["convert", "xml", "x", "--map", "y", "--out", str(tmp_path / "log")]) == 2
    assert "unknown source 'xml'; known: csv" in capsys.readouterr().err


def test_arguments_arrive_typed(monkeypatch):
    seen = []
    _command(monkeypatch, lambda: None)

    def run(number: int, name: str = "x") -> int:
        seen.append((number, name))
        return 0

    sys.modules["fake_room"].run = run
    assert cli.run(["simulate", "5", "--name", "y"]) == 0
    assert seen == [(5, "y")]


def test_wrong_options_are_wrong_usage(monkeypatch, capsys):
    def run(number: int) -> None:
        raise AssertionError

    _command(monkeypatch, run)
    for argv in (["--nope"], [], ["five"], ["1", "2"]):
        assert cli.run(["simulate", *argv]) == 2
        assert "recsys simulate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (
            ["bench", "loop", "--nights", "-3"],
            "'--nights': Input should be greater than or equal to 1, not -3 (see",
        ),
        (["bench", "nightly", "--part", "kill"], "'--part': 'kill' is not one of 'crash',"),
    ],
)
def test_a_wrong_value_is_named_once_and_in_plain_words(capsys, argv, sentence):
    assert cli.run(argv) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Value error" not in error


def test_a_benchmark_outside_a_checkout_says_where_to_get_it(tmp_path):
    """The wheel's packages in a folder of their own, as pip lays them out: no traceback, exit code 2."""
    shutil.copytree(Path(cli.__file__).parent, tmp_path / "recsys", ignore=shutil.ignore_patterns("*.pyc"))
    for name in (name for name in cli.COMMANDS if name.startswith("bench ")):
        done = _outside(tmp_path, *name.split(), "--help")
        assert done.returncode == 2
        assert done.stderr.startswith(f"recsys {name}: benchmarks are not part of the installed package")
        assert done.stderr.count("\n") == 1


def test_a_checkouts_benchmarks_are_found_from_any_folder(tmp_path):
    (tmp_path / "recsys").symlink_to(Path(cli.__file__).parent)
    done = _outside(tmp_path, "bench", "quality", "--help")
    assert done.returncode == 0
    assert "--set" in done.stdout


def _outside(folder, *argv):
    """Run a command where `recsys` alone can be imported."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); from recsys.cli import main; main()"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", code, *argv],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
    )


@pytest.mark.parametrize("error", [ConfigError, DataError, BundleError, RecsysError])
def test_our_errors_are_one_line_and_a_code_of_their_own(monkeypatch, capsys, error):
    def run() -> None:
        raise error("what, where, remedy")

    _command(monkeypatch, run)
    assert cli.run(["simulate"]) == error.exit_code
    assert capsys.readouterr().err == "recsys simulate: what, where, remedy\n"


def test_error_codes_differ():
    codes = [kind.exit_code for kind in RecsysError.__subclasses__() if kind.__module__ == "recsys.errors"]
    verdicts = [verdict.exit_code for verdict in Verdict]
    others = [RecsysError.exit_code, *verdicts, CallError.exit_code, HELD_IN_ROW_CODE, cli.INTERRUPTED]
    assert len({*codes, *others}) == len(codes) + len(others)


def test_ctrl_c_is_130_and_says_what_stays(monkeypatch, capsys):
    def run() -> None:
        raise KeyboardInterrupt

    _command(monkeypatch, run)
    assert cli.run(["simulate"]) == 130
    assert "nothing half-written stays, run it again" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(monkeypatch):
    def run() -> None:
        raise ZeroDivisionError

    _command(monkeypatch, run)
    with pytest.raises(ZeroDivisionError):
        cli.run(["simulate"])


def test_a_commands_own_exit_code(monkeypatch):
    import typer

    def run(code: int) -> int:
        if code > 10:
            raise typer.Exit(code)
        return code

    _command(monkeypatch, run)
    assert [cli.run(["simulate", str(code)]) for code in (0, 3, 12)] == [0, 3, 12]
    assert cli.run(["simulate", "--help"]) == 0


def test_main_exits_with_the_code():
    with pytest.raises(SystemExit) as caught:
        cli.main(["nope"])
    assert caught.value.code == 2


def test_a_reader_that_stops_early_gets_no_traceback():
    read, write = os.pipe()
    os.close(read)
    code = "from recsys.cli import main; main(['--help'])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_help_starts_without_torch():
    code = "import sys; from recsys.cli import run; run([]); print({'torch', 'polars'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "set()"


@pytest.mark.parametrize("target", [target for target, _ in cli.COMMANDS.values()])
def test_a_commands_module_exists(target):
    module, function = target.split(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"{module} is named in COMMANDS"
    with open(spec.origin, encoding="utf-8") as stream:
        assert f"def {function}(" in stream.read()


def test_a_group_has_a_help_page(capsys):
    assert cli.run(["bundle", "--help"]) == 0
    assert "bundle rollback" in capsys.readouterr().out
