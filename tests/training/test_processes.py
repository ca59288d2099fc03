"""Several processes follow the curve of one, end together, and leave what one leaves.

Two ranks of one thread, in shared memory, on the shop's first days: a real night's `train`, float32.
"""

import json
import logging
from datetime import date
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recsys.config import TrainingConfig
from recsys.model.embeddings import TableSpec
from recsys.stages import MANIFEST, write_json
from training.data.chunks import DaySize
from training.errors import DivergedError, RankError
from training.fit_inputs import FitInputs
from training.host_choice import HostChoice, Trial, measure_choice, num_processes
from training.night.work import choose
from training.processes import free_memory, rank
from training.processes.job import STEPS
from training.processes.launch import _own_signals, launch
from training.processes.parent import told
from training.train import train
from training.trainer.group import Group
from training.trainer.saver import Saver
from training.trainer.settings import FitSettings
from training.trainer.train_log import TrainLog
from training.trainer.watcher import Watcher

TOLERANCE = 1e-4
"""Relative difference allowed of each loss of each step: sums are added in another order."""


def _train(days, config, processes, folder, watchers=(), start=None, alone=()):
    periods = {t.name: (0, 1) for t in config.tasks}
    choice = HostChoice(processes=processes)
    return train(
        days,
        periods,
        config,
        None,
        1,
        folder=folder,
        choice=choice,
        watchers=watchers,
        start=start,
        alone=alone,
    )


class SaveOnce(Saver):
    """Saves after one step of the fit, and no more."""

    STEP = 2

    def after_step(self, progress):
        if progress.step == self.STEP:
            self.save(progress.checkpoint())


class Rows(Watcher):
    """Keeps the rows learned so far after each step that it sees."""

    def __init__(self):
        self.seen = []

    def on_rows(self, rows, of_step):
        self.seen.append(rows)


@pytest.fixture(scope="module")
def both(shop_chain, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoded")
    return [_train(shop_chain, config, processes, folder) for processes in (1, 2)]


def test_two_processes_follow_the_curve_of_one(both):
    one, two = both
    assert one.log.steps == two.log.steps > 5
    assert one.log.rows == two.log.rows
    for step, (alone, together) in enumerate(zip(one.log.losses, two.log.losses, strict=True)):
        assert alone == pytest.approx(together, rel=TOLERANCE), step
    weights = two.weights()
    for name, value in one.weights().items():
        np.testing.assert_allclose(weights[name], value, atol=2e-4, rtol=1e-3, err_msg=name)


@pytest.mark.usefixtures("quick_ranks")
def test_two_processes_teach_a_new_head_as_one_does(both, shop_chain, config, tmp_path):
    """And move nothing but the new head's own parts."""
    one, two = (_train(shop_chain, config, n, tmp_path, alone=("rating",)) for n in (1, 2))
    assert one.log.steps == two.log.steps > 5
    assert {name for losses in two.log.losses for name in losses} == {"rating"}
    for step, (alone, together) in enumerate(zip(one.log.losses, two.log.losses, strict=True)):
        assert alone == pytest.approx(together, rel=TOLERANCE), step
    mine, theirs, all_heads = one.weights(), two.weights(), both[0].weights()
    own = {name for name in mine if "rating" in name or name == "ranker.position.weight"}
    moved = {name for name, value in mine.items() if not np.array_equal(value, theirs[name])}
    assert moved <= own | {name for name in mine if ".gates." in name}, "sums are added in another order"
    assert not np.array_equal(mine["table.item_id.weight"], all_heads["table.item_id.weight"])


@pytest.mark.usefixtures("quick_ranks")
def test_a_checkpoint_of_one_process_goes_on_in_two_and_theirs_in_one(both, shop_chain, config, tmp_path):
    one = both[0]
    saver, rows = SaveOnce(tmp_path / "of-one", 0, print), Rows()
    whole = Rows()
    _train(shop_chain, config, 1, tmp_path, [saver, whole])
    again = Saver(saver.folder, 1e-9, print)
    two = _train(shop_chain, config, 2, tmp_path, [again, rows])
    assert rows.seen == whole.seen[SaveOnce.STEP + 1 :], "what lies before is not learned again"
    assert two.log.losses[: SaveOnce.STEP + 1] == one.log.losses[: SaveOnce.STEP + 1]
    for step, (alone, together) in enumerate(zip(one.log.losses, two.log.losses, strict=True)):
        assert alone == pytest.approx(together, rel=TOLERANCE), step
    last = again.read()
    assert last.log.steps == two.log.steps
    back = _train(shop_chain, config, 1, tmp_path, start=last)
    for name, value in two.weights().items():
        np.testing.assert_array_equal(back.weights()[name], value, err_msg=name)


def test_an_error_of_a_watcher_ends_the_fit_as_in_one_process(tmp_path):
    class Stops(Watcher):
        def on_rows(self, rows, of_step):
            raise DivergedError("enough")

    steps = tmp_path / "steps.jsonl"
    steps.write_text(json.dumps({"rows": 8, "of_step": 8}) + "\n")
    with pytest.raises(DivergedError, match="enough"), told(steps, [Stops()]):
        pass


class Everything(Watcher):
    """Keeps what it is told, in order."""

    def __init__(self):
        self.seen = []

    def on_losses(self, step, losses):
        self.seen.append((step, losses))

    def on_rows(self, rows, of_step):
        self.seen.append(rows)


def test_losses_that_are_read_seldom_come_when_they_are_read(tmp_path):
    """As on a GPU: the first steps are made before any loss is read, and then several are."""
    steps, told_of = tmp_path / "steps.jsonl", Everything()
    with told(steps, [told_of]):
        teller = rank._Teller(steps)
        teller.on_rows(8, 8)
        teller.on_losses(0, {"click": 0.5})
        teller.on_losses(1, {"click": 0.25})
        teller.on_rows(16, 8)
        teller.stream.close()
    assert told_of.seen == [8, (0, {"click": 0.5}), (1, {"click": 0.25}), 16]


def test_a_checkpoint_that_rank_0_cannot_write_is_said_by_the_parent(tmp_path, capsys):
    job = SimpleNamespace(folder=tmp_path, diverged=lambda: None)
    saver = Saver(tmp_path, 1, print)
    with told(tmp_path / STEPS, []):
        teller, *_ = rank._watchers(job, None, Group(), saver, None, copied=True)
        saver.give_up(3, OSError("no space left"))
        teller.stream.close()
    assert "no checkpoint at step 3, training goes on: no space left" in capsys.readouterr().err


@pytest.mark.usefixtures("quick_ranks")
def test_over_gloo_the_sums_are_the_same(both, shop_chain, config, tmp_path, monkeypatch, capsys):
    """Where there is no memory to be had for ranks, they say so and go on."""

    def none(_plan):
        raise OSError("none left")

    monkeypatch.setattr("training.processes.launch.make_memory", none)
    found = _train(shop_chain, config, 2, tmp_path)
    said = " ".join(capsys.readouterr().err.split())
    assert "no shared memory of 20 MB for 2 processes (none left)" in said
    assert found.log.losses == both[1].log.losses


def test_free_memory_is_the_least_of_host_and_groups(tmp_path, monkeypatch):
    group = tmp_path / "groups/a/b"
    group.mkdir(parents=True)
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    (tmp_path / "cgroup").write_text("0::/a/b\n")
    monkeypatch.setattr(free_memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(free_memory, "OWN_GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(free_memory, "GROUPS", tmp_path / "groups")
    assert free_memory.free_memory() == 4000 * 1024
    for folder, limit in ((group, "max"), (group.parent, "3000000")):
        (folder / "memory.max").write_text(limit + "\n")
        (folder / "memory.current").write_text("2000000\n")
        (folder / "memory.stat").write_text("anon 1\ninactive_file 500000\n")
    assert free_memory.free_memory() == 1_500_000
    (tmp_path / "meminfo").unlink()
    assert free_memory.free_memory() is None


def test_a_rank_that_dies_ends_all_and_is_named():
    dies = "import os, signal, time\nif os.environ['RANK'] == '1': os.kill(os.getpid(), 9)\ntime.sleep(600)"
    with pytest.raises(RankError, match=r"rank 1 of 2 ended by SIGKILL; its log is /.*stderr.log.*--nproc 1"):
        launch(["-c", dies], 2)
    with pytest.raises(RankError, match=r"rank 0 of 2 ended with exit code 3"):
        launch(
            ["-c", "import os, sys, time\nsys.exit(3) if os.environ['RANK'] == '0' else time.sleep(600)"], 2
        )


@pytest.mark.usefixtures("quick_ranks")
def test_one_rank_adds_up_alone():
    """As one does whose tables TorchRec places: it meets nobody."""
    adds = """
import torch
from training.processes.join import joined
with joined() as group:
    x = torch.ones(2)
    group.sum_([x])
    assert (group.rank, group.size) == (0, 1)
    assert torch.equal(group.total(x), x), x
    assert torch.equal(group.parts(x)[0], x), x
"""
    launch(["-c", adds], 1)


def test_the_launcher_says_nothing_itself():
    """Of a signal the command speaks; its log line would stand between."""
    from torch.distributed.elastic.agent.server import api

    server = logging.getLogger(api.__name__)
    with _own_signals():
        assert not server.isEnabledFor(logging.ERROR)
    assert server.isEnabledFor(logging.ERROR)


def test_a_trial_takes_as_many_of_the_last_days_as_have_its_steps(config):
    rows = config.training.batch_size
    given = {i: DaySize(date(2026, 1, 1 + i), n * rows) for i, n in enumerate((40, 20, 0, 6))}
    nothing = dict.fromkeys(("state", "text", "popularity", "settings", "read_day"))
    inputs = FitInputs(config=config, tasks=(), days=given, epochs=3, **nothing)
    trial = Trial.of(inputs, None, None)
    assert list(trial.inputs.days) == [1, 2, 3]
    assert (trial.inputs.epochs, trial.inputs.limit) == (1, 25)


def test_a_trial_of_several_needs_their_memory(monkeypatch, capsys):
    monkeypatch.setattr("training.host_choice.free_memory", lambda: 1 << 30)
    spec = TableSpec(name="item_id", size=1 << 22, dim=32)
    tables = SimpleNamespace(specs={spec.name: spec})
    trial = Trial(inputs=None, ranker=torch.nn.Linear(2, 2), tables=tables)
    assert trial.rows_per_second(HostChoice(processes=2)) == 0.0
    said = " ".join(capsys.readouterr().err.split())
    assert "2 processes: not tried: it needs about 3.0 GiB, and 1.0 GiB are free" in said


def _trial(config):
    """Make a trial whose fit is never made."""
    settings = FitSettings(
        learning_rate=1.0, weight_decay=0.0, retrieval_task=None, temperature=1.0, total_steps=1
    )
    nothing = dict.fromkeys(("state", "text", "popularity", "days", "epochs", "read_day"))
    inputs = FitInputs(config=config, tasks=(), settings=settings, **nothing)
    return Trial(inputs=inputs, ranker=torch.nn.Linear(2, 2), tables=SimpleNamespace(specs={}))


def test_auto_does_not_choose_tables_that_the_balancer_cannot_share(make_config, monkeypatch, capsys):
    """It would be found out at the first step, and end a night whose config is right."""
    fast = TrainLog(rows=800, steps=8, ends=[float(n) for n in range(8)])
    monkeypatch.setattr("training.host_choice.fit_in_processes", lambda *_given, **_options: fast)
    shared = HostChoice(processes=2, tables="sharded")
    trial = _trial(make_config(training={"balancing": "upgrad"}))
    assert trial.rows_per_second(shared) == 0.0
    assert "not possible here: [training] balancing = 'upgrad' looks at" in capsys.readouterr().err
    assert trial.rows_per_second(HostChoice(processes=2)) == 100.0
    assert _trial(make_config()).rows_per_second(shared) == 100.0


@pytest.mark.parametrize("tables", ["auto", "sharded"])
def test_a_cut_of_tables_that_nothing_reads_is_said(make_config, tmp_path, capsys, tables):
    cut = {"processes": 1, "precision": "fp32", "tables": tables, "sharding": {"item_id": "row_wise"}}

    def kept(build):
        write_json(tmp_path / MANIFEST, build(tmp_path))
        return tmp_path

    step = SimpleNamespace(config=make_config(training=cut), kept=kept)
    choice = choose(step, days=None, plan=None, previous=None)
    said = "[training.sharding] is not read" in " ".join(capsys.readouterr().err.split())
    assert (choice.tables, said) == (("sharded", False) if tables == "sharded" else ("replicated", True))


@pytest.mark.parametrize("processes", [1, 2])
def test_a_trial_that_diverges_is_no_figure(config, monkeypatch, capsys, processes):
    """The night goes on to the stage that saves the bad step."""

    def diverges(*_given, **_options):
        raise DivergedError("the loss of click is not finite at step 3")

    monkeypatch.setattr("training.host_choice.fit_in_processes", diverges)
    monkeypatch.setattr(FitInputs, "fit", diverges)
    trial = _trial(config)
    assert trial.rows_per_second(HostChoice(processes=processes)) == 0.0
    assert "not measured: the loss of click is not finite at step 3" in capsys.readouterr().err


class Stopwatch:
    """Knows what each choice would reach; keeps what was asked for."""

    specs = ()

    def __init__(self, **rates):
        self.rates, self.asked = rates, []

    def rows_per_second(self, choice):
        self.asked.append(choice)
        return self.rates[choice.precision] * self.rates["processes"] ** (choice.processes > 1)


@pytest.mark.parametrize(
    ("given", "rates", "chosen"),
    [
        ({}, {"fp32": 10.0, "processes": 1.5}, HostChoice(processes=2)),
        ({}, {"fp32": 10.0, "processes": 1.05}, HostChoice()),
        ({"precision": "bf16"}, {"bf16": 10.0, "processes": 1.5}, HostChoice(precision="bf16", processes=2)),
        ({"processes": 3}, {"fp32": 10.0, "processes": 1.0}, HostChoice(processes=3)),
    ],
)
def test_what_is_open_is_measured(monkeypatch, given, rates, chosen):
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1}, raising=False)
    monkeypatch.setattr("training.host_choice.has_fast_bf16", lambda _device: False)
    watch = Stopwatch(**rates)
    choice, measured = measure_choice(TrainingConfig(device="cpu", **given), watch)
    assert choice == chosen
    assert len(measured) == len(watch.asked) == (0 if "processes" in given else 2)


def test_a_processor_with_bfloat16_is_measured_too(monkeypatch):
    monkeypatch.setattr("training.host_choice.has_fast_bf16", lambda _device: True)
    for rate, precision in ((10.5, "fp32"), (20.0, "bf16")):
        watch = Stopwatch(fp32=10.0, bf16=rate, processes=1.0)
        assert measure_choice(TrainingConfig(device="cpu", processes=1), watch)[0] == HostChoice(
            precision=precision
        )


def test_a_process_has_rows_enough_to_pay():
    assert num_processes(256) == 1
    assert num_processes(10**9) >= 1
