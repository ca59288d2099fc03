"""A night on a wholesaler's purchases, with the config that `convert` writes: what was bought comes again."""

import json
import re

import pytest

from benchmarks.wholesaler.purchases import Wholesaler, write_log
from recsys.cli import run
from recsys.config import load_config
from recsys.manifest import read_manifest
from recsys.registry import Registry

SHOP = Wholesaler(customers=160, items=150, rows=6_000, days=28)
SMALL = """
[model]
position_bias = false
head_hidden = 8
tower_hidden = 16
embedding_dim = 16
attention_dim = 16
trunk = {hidden = [16], num_experts = 2}

[publish]
check = false  # a server of its own: test_post_check.py has it
"""
"""The heads: a list that is right here rests on what was bought before."""


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """Give the log and the runs folder after a night."""
    folder = tmp_path_factory.mktemp("wholesaler")
    write_log(folder / "raw", SHOP)
    log, runs = folder / "log", folder / "runs"
    mapping = str(folder / "raw" / "mapping.toml")
    assert run(["convert", "csv", str(folder / "raw"), "--map", mapping, "--out", str(log)]) == 0
    config = log / "config.toml"
    written = config.read_text()
    # A few hundred rows say little about calibration.
    written = written.replace("[gate]\n", "[gate]\nmax_ece = 0.3\n")
    config.write_text(re.sub(r"\[model\]\n[^[]*", SMALL.lstrip(), written))
    nightly = [
        "nightly",
        "--config",
        str(config),
        "--log",
        str(log),
        "--runs",
        str(runs),
        "--date",
        "2025-01-30",
    ]
    assert run(nightly) == 0
    return log, runs


def test_the_config_learns_repeats_and_the_night_weighs_them(night):
    log, runs = night
    policy = load_config(log / "config.toml").policy
    assert (policy.repeat, policy.repeat_kinds) == ("learn", ("purchase",))
    registry = Registry(runs)
    live = read_manifest(registry.require(registry.current()))
    assert live.fusion.sources.repeat > 0
    evaluated = read_manifest(registry.require(live.parent))
    assert evaluated.fusion.sources == live.fusion.sources, "refitted weights keep the sources' part"


def test_lists_are_those_of_a_shop_whose_customers_come_again(night, capsys):
    log, runs = night
    json_file = runs / "evaluation.json"
    days = ["--from", "2025-01-31", "--to", "2025-02-02"]
    assert run(["evaluate", "--log", str(log), "--runs", str(runs), *days, "--json", str(json_file)]) == 0
    report = json.loads(json_file.read_text())
    ranking, popular = report["ranking"], report["baselines"]["popular"]["ranking"]
    assert ranking["values"]["ndcg_at_10"] > popular["values"]["ndcg_at_10"]
    assert ranking["by_source"]["repeat"]["found"] > 0
    assert ranking["hidden"] == 0
    assert "wanted items on first pages, by source" in capsys.readouterr().out
