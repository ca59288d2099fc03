"""Shares of the users: however a period is split and wherever it is built, the same rows in one order."""

import builtins
import os
import sys
import tempfile
from datetime import date, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from features.build import build_snapshots
from features.executor import EXECUTORS, open_executor
from features.parts import PeriodDays
from recsys.config import ExecutionConfig
from recsys.errors import ConfigError, DataError, RecsysError
from recsys.log import InteractionLog
from recsys.stages import Stages

LAST = date(2026, 1, 30)
TABLES = {
    "users", "user_tile", "items", "item_tile", "new_items", "seen", "tail", "taken", "events", "feedback",
    "examples",
    "cross_category", "cross_category_tile", "cross_attribute_brand", "cross_attribute_brand_tile",
}  # fmt: skip


def _config(make_config, **execution):
    return make_config(execution=execution, features={"cross_user_by": ("category", "attribute_brand")})


def _assert_same_rows(single, sharded):
    assert [s.day for s in single] == [s.day for s in sharded]
    for one, other in zip(single, sharded, strict=True):
        assert one.path.name == other.path.name, "how a day is split is not in its address"
        for table in TABLES - {"examples"}:
            assert_frame_equal(one.table(table), other.table(table))
        assert_frame_equal(one.examples(), other.examples())
        for counted in ("rows", "quarantine"):
            assert one.manifest[counted] == other.manifest[counted]


@pytest.fixture(scope="module")
def dirty_log(shop_log, tmp_path_factory):
    """Take the shop's log with organic feedback, rows sent twice and rows without a user (quarantined)."""
    log = InteractionLog(tmp_path_factory.mktemp("dirty"))
    for table in ("impressions", "feedback", "users", "items"):
        for day in shop_log.days(table):
            rows = shop_log.read(table, day)
            if table == "feedback":
                organic = pl.int_range(pl.len()) % 4 == 0
                rows = rows.with_columns(pl.when(~organic).then("impression_id").alias("impression_id"))
            if table == "items":  # numbers: as text, 10 comes before 2
                rows = rows.with_columns(attribute_brand=pl.int_range(pl.len()) % 12)
            again = rows.head(5) if table in ("impressions", "feedback") else rows.clear()
            nobody = (
                again.with_columns(user_id=pl.lit(None, pl.String)) if "user_id" in again.columns else again
            )
            log.write(table, day, pl.concat([rows, again, nobody]))
    return log


@pytest.fixture(scope="module")
def single(dirty_log, make_config, tmp_path_factory):
    """Build it in one part."""
    return build_snapshots(dirty_log, LAST, _config(make_config), Stages(tmp_path_factory.mktemp("single")))


def test_the_tables_compared_are_all_there_are(single):
    written = {p.stem for p in single[-1].path.glob("*.parquet")}
    written |= {p.stem for p in (single[-1].path / "part-0000").glob("*.parquet")}
    assert written == TABLES
    assert single[-1].manifest["quarantine"]["impressions"] == {
        "duplicate": 5,
        "user_id|nullability": 5,
    }


def test_four_shards_in_two_processes_give_the_rows_of_one(dirty_log, single, make_config, tmp_path):
    config = _config(make_config, shards=4, workers=2)
    sharded = build_snapshots(dirty_log, single[2].day, config, Stages(tmp_path))
    assert sharded[-1].num_parts == 4
    tiles = sharded[-1].table("item_tile")
    assert 0 < tiles["click_shown"].sum() < tiles["click_count"].sum()
    assert all(sharded[-1].table("users", part).height > 0 for part in range(4))
    _assert_same_rows(single[:3], sharded)


@pytest.mark.parametrize("shards", [(1, 3), (4, 1), (2, 5)], ids=str)
def test_the_number_of_shards_may_change_between_nights(dirty_log, single, make_config, tmp_path, shards):
    stages, half = Stages(tmp_path), LAST - timedelta(days=3)
    build_snapshots(dirty_log, half, _config(make_config, shards=shards[0]), stages)
    chain = build_snapshots(dirty_log, LAST, _config(make_config, shards=shards[1]), stages)
    assert {s.num_parts for s in chain} == set(shards)
    _assert_same_rows(single, chain)
    for part in range(shards[1]):
        users = chain[-1].table("users", part)
        assert users["user_id"].is_sorted(), "as if it had never been split otherwise"


@pytest.fixture(scope="module")
def ray():
    """Give Ray where it works: a task that is not ours runs on a cluster of its own first."""
    if " " in sys.executable:
        pytest.skip(f"the path of {sys.executable} has a space: Ray cannot start workers with it")
    found = pytest.importorskip("ray", reason="ray is not installed: pip install '.[ray]'")
    # A folder of our own: /tmp/ray may be another user's. A short path: it holds Unix sockets.
    with (
        tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("RAY_TMPDIR", folder)
        _run_a_task(found)
        yield found


def _run_a_task(ray):
    """Skip, with what Ray says, where not even a task without our code runs."""
    try:
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
        task = ray.remote(num_cpus=1, runtime_env={"env_vars": {"GIVEN": "1"}})(os.getenv)
        assert ray.get(task.remote("GIVEN"), timeout=60) == "1"
    except Exception as error:
        pytest.skip(f"Ray itself does not run here: {type(error).__name__}: {str(error).strip()[-300:]}")
    finally:
        ray.shutdown()


def test_ray_gives_the_rows_of_one_process(ray, dirty_log, single, make_config, tmp_path):
    config = _config(make_config, shards=4, workers=2, executor="ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        sharded = build_snapshots(dirty_log, single[1].day, config, Stages(tmp_path / "stages"))
        assert ray.is_initialized(), "a cluster that runs already is left as it is"
        _assert_same_rows(single[:2], sharded)
        with pytest.raises(DataError, match=r"impressions.*lacks the column\(s\) position"):
            build_snapshots(_broken(dirty_log, tmp_path / "log"), LAST, config, Stages(tmp_path / "broken"))
    finally:
        ray.shutdown()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_shares_own_error_comes_out_as_it_was_raised(dirty_log, make_config, tmp_path, workers):
    log = _broken(dirty_log, tmp_path / "log")
    config = _config(make_config, shards=2, workers=workers)
    with pytest.raises(DataError, match=r"impressions.*lacks the column\(s\) position"):
        build_snapshots(log, LAST, config, Stages(tmp_path / "stages"))
    assert not list((tmp_path / "stages").rglob("manifest.json")), "nothing half-built is left"


def test_a_cluster_that_the_build_starts_ends_with_it(ray, dirty_log, make_config, tmp_path):
    config = _config(make_config, executor="ray")
    build_snapshots(dirty_log, dirty_log.days("impressions")[0], config, Stages(tmp_path))
    assert not ray.is_initialized()


def test_a_killed_process_says_what_to_change(dirty_log, single):
    with (
        open_executor(ExecutionConfig(shards=2, workers=2)) as run_parts,
        pytest.raises(RecsysError, match=r"killed.*raise \[execution\] shards \(2\) or lower workers \(2\)"),
    ):
        run_parts([_Deadly(single[0].day)] * 2)


class _Deadly:
    """A task whose arrival ends the process, as the kernel does when memory runs out."""

    def __init__(self, day):
        self.period = PeriodDays(day, day, (day,))

    def __reduce__(self):
        return os._exit, (9,)


def _broken(log, root):
    """Copy a log whose impressions lack a column."""
    made = InteractionLog(root)
    for table in ("impressions", "feedback", "users", "items"):
        for day in log.days(table):
            rows = log.read(table, day)
            made.write(table, day, rows.drop("position") if table == "impressions" else rows)
    return made


def test_an_unknown_executor_names_those_there_are():
    expected = pytest.raises(ConfigError, match=r"executor = 'slurm' is unknown; known: local, ray")
    with expected, open_executor(ExecutionConfig(executor="slurm")):
        pass
    assert set(EXECUTORS) == {"local", "ray"}


def test_an_interpreter_whose_path_has_a_space_is_refused_before_ray_is_started(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/home/a user/venv/bin/python")
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it would say that it is not installed
    refused = pytest.raises(
        ConfigError, match=r"'/home/a user/venv/bin/python', whose path has a space; make"
    )
    with refused, open_executor(ExecutionConfig(executor="ray")):
        pass
    # The workers of a cluster elsewhere have interpreters of their own.
    elsewhere = ExecutionConfig(executor="ray", ray_address="ray://10.0.0.1:10001")
    with pytest.raises(ConfigError, match="not installed"), open_executor(elsewhere):
        pass


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    installed = builtins.__import__

    def without_ray(name, *arguments, **keywords):
        if name == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        return installed(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    monkeypatch.setattr(sys, "executable", "/venv/bin/python")  # one whose path has a space is refused before
    expected = pytest.raises(ConfigError, match=r"not installed: pip install 'recsys-mtl\[ray\]'")
    with expected, open_executor(ExecutionConfig(executor="ray")):
        pass
