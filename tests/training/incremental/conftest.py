"""One night of the tiny shop, and copies of its runs folder."""

import shutil
from datetime import date

import pytest

from recsys.records import Verdict
from training.night.night import Night
from training.night.run import run_night

NIGHT = date(2026, 1, 29)


@pytest.fixture(scope="package")
def night(shop_log, make_config, tmp_path_factory):
    config = make_config(gate={"min_rows": 100_000}, training={"batch_size": 64}, updates={"min_rows": 20})
    made = Night(config=config, log=shop_log, runs=tmp_path_factory.mktemp("runs"), date=NIGHT)
    assert run_night(made).verdict is Verdict.PROMOTE
    return made


@pytest.fixture
def runs(night, tmp_path):
    return shutil.copytree(night.runs, tmp_path / "runs")
