"""What `recsys bench` cannot read, write or value is a sentence, said before anything is measured."""

import pytest

from recsys.cli import run
from recsys.config import FusionConfig, default_config


@pytest.fixture(autouse=True)
def _nothing_is_measured(monkeypatch) -> None:
    for place in (
        "loop.loop.Shop",
        "lists.run_lists.ProcessPoolExecutor",
        "offpolicy.run.measure_simulated",
        "nightly.long_run.measure_long",
    ):
        monkeypatch.setattr(f"benchmarks.{place}", None)


@pytest.mark.parametrize(
    "arguments", [["loop", "--svg"], ["offpolicy", "--plot"], ["nightly", "--part", "long", "--page"]]
)
def test_a_file_that_cannot_be_written(capsys, tmp_path, arguments) -> None:
    assert run(["bench", *arguments, str(tmp_path / "none" / "drawing.svg")]) == 2
    assert f"there is no folder {tmp_path / 'none'}; make it first" in capsys.readouterr().err
    assert run(["bench", *arguments, str(tmp_path)]) == 2
    assert "is a folder; name a file in it" in capsys.readouterr().err


def test_a_folder_without_open_bandit(capsys, tmp_path) -> None:
    assert run(["bench", "offpolicy", "--open-bandit", str(tmp_path)]) != 0
    assert "has no all.csv.gz; pass the folder with random/ and bts/" in capsys.readouterr().err
    (tmp_path / "random" / "all").mkdir(parents=True)
    (tmp_path / "random" / "all" / "all.csv").touch()
    assert run(["bench", "offpolicy", "--open-bandit", str(tmp_path)]) != 0
    assert "has no item_context.csv.gz" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["lists", "loop"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tasks": default_config().tasks[:1]},
            "the shop's truth values click, purchase, rating: take a config of these three",
        ),
        ({"fusion": FusionConfig(formula="multiplicative")}, "formula = 'multiplicative': the true value"),
    ],
)
def test_a_config_that_the_truth_cannot_value(capsys, monkeypatch, command, changes, message) -> None:
    config = default_config().model_copy(update=changes)
    monkeypatch.setattr("features.definitions.read_config", lambda _: config)
    assert run(["bench", command]) != 0
    assert message in capsys.readouterr().err
