"""Training and scoring on a second device: no tensor is left behind, and the numbers are the CPU's.

Each registry is walked, so that a new trunk, loss or balancer is held to it before anyone writes a test.
"""

import dataclasses
from itertools import islice

import numpy as np
import pytest
import torch

from features.encode import Encoder
from features.fit import FitFrames, fit_encoder
from recsys.batch import BagIndex
from recsys.config import ModelConfig
from recsys.head_kinds import HEAD_KINDS
from recsys.model.embeddings import LocalTables, TableSpec
from recsys.model.ranker import Ranker
from recsys.model.trunks import TRUNKS
from recsys.shapes import RETRIEVAL
from recsys.tasks import TaskSpec
from training.balancing import BALANCERS, build_balancer
from training.build_model import ranker_inputs, table_specs
from training.data import encode_day, positive_share
from training.train import make_batcher
from training.trainer.fit import fit
from training.trainer.logits import predict_logits
from training.trainer.settings import FitSettings
from training.trainer.watcher import Watcher

TAGS = TableSpec(name="tag", size=9, dim=3)
ROWS = 48
"""Of a batch."""
STEPS = 2


def _bags(size):
    """Lists of 0 to 2 tags."""
    starts = torch.arange(size) * 3 // 2
    return BagIndex(torch.arange(int(starts[-1]) + 1) % TAGS.size, starts)


@pytest.fixture(scope="module")
def parts(shop_chain, config):
    """Give inputs, table sizes and batches of the small shop, with lists of tags of users and items added."""
    i = shop_chain.last - 1
    state = fit_encoder(config, FitFrames.read(shop_chain[i], [shop_chain[i]], config), None, 0)
    encoder = Encoder.from_config(config, state)
    encoded = encode_day(encoder, shop_chain, i, config.tasks)
    share = positive_share(np.arange(5), np.ones(5), state.vocabularies["item_id"].size)
    training = config.training.model_copy(update={"batch_size": ROWS})
    small = config.model_copy(update={"training": training})
    batcher = make_batcher(encoder, shop_chain[i].table("items"), small, config.tasks)
    batches = []
    drawn_at = np.random.default_rng(0)
    for made in islice(batcher.batches(encoded, drawn_at, share[encoded.items.ids[:, 0]]), STEPS):
        drawn = dataclasses.replace(made.negatives, bags={"tags": _bags(made.negatives.item_M.numel())})
        bags = {"tags": _bags(made.size), "likes": _bags(made.size)}
        rows = {**made.rows, TAGS.name: torch.arange(TAGS.size)}
        batches.append(dataclasses.replace(made, rows=rows, bags=bags, negatives=drawn))
    inputs = dataclasses.replace(
        ranker_inputs(config, state),
        user_bags=(("likes", TAGS.name, TAGS.dim),),
        item_bags=(("tags", TAGS.name, TAGS.dim),),
    )
    return inputs, (*table_specs(config, state), TAGS), batches


def _settings(**values):
    base = {"learning_rate": 0.01, "weight_decay": 1e-5, "retrieval_task": "click", "temperature": 0.1}
    return FitSettings(**{**base, "total_steps": STEPS, "warmup_steps": 1, **values})


def _trained(parts, tasks, model, device, balancing="fixed", in_host=(), watchers=(), **settings):
    """Fit on a device; give the losses, and the logits that the model then has."""
    inputs, specs, batches = parts
    torch.manual_seed(3)
    ranker = Ranker(inputs, tasks, model)
    tables = LocalTables(specs, 0.1, 0).to(device, in_host)
    ranker.to(device)
    weights = {t.name: t.weight for t in tasks} | {RETRIEVAL: 0.2}
    balancer = build_balancer(balancing, weights)
    log = fit(ranker, tables, batches, balancer, tasks, _settings(**settings), watchers)
    assert {p.device for p in ranker.parameters()} == {device}
    assert {rows.device.type for rows in tables.export().values()} == {"cpu"}
    return log.losses, predict_logits(ranker, tables, batches)


def _assert_equal(found, wanted):
    """Compare the losses of the steps and the logits after them; sums may differ in their last bits."""
    (losses, logits), (losses_cpu, logits_cpu) = found, wanted
    for step, want in zip(losses, losses_cpu, strict=True):
        assert step == pytest.approx(want, rel=1e-4, abs=1e-6)
    assert list(logits) == list(logits_cpu)
    for task, values in logits.items():
        np.testing.assert_allclose(values, logits_cpu[task], rtol=1e-3, atol=1e-4, err_msg=task)


def _assert_same_on(device, parts, tasks, model, **how):
    _assert_equal(
        _trained(parts, tasks, model, device, **how),
        _trained(parts, tasks, model, torch.device("cpu"), **how),
    )


def _with(model: ModelConfig, **values):
    return model.model_copy(update=values)


@pytest.mark.parametrize("trunk", sorted(TRUNKS))
def test_every_trunk(pretend, parts, config, trunk):
    shape = config.model.trunk.model_copy(update={"name": trunk})
    _assert_same_on(pretend, parts, config.tasks, _with(config.model, trunk=shape, dropout=0.0))


@pytest.mark.parametrize("balancing", sorted(BALANCERS))
def test_every_balancer(pretend, parts, config, balancing):
    _assert_same_on(pretend, parts, config.tasks, config.model, balancing=balancing)


def _tasks_of_every_loss():
    """Make one task of each loss of each kind, on the labels that the shop has."""
    made = {}
    for head, kind in HEAD_KINDS.items():
        label, space = ("click", "impressions") if kind.probability else ("rating", "observed")
        for loss in kind.losses:
            base = {"name": label, "feedback": label, "head": head, "window": "1h", "loss": loss}
            made[f"{head}:{loss}"] = TaskSpec.model_validate(base | {"space": space})
    return made


@pytest.mark.parametrize("name", sorted(_tasks_of_every_loss()))
def test_every_loss_of_every_head_kind(pretend, parts, config, name):
    task = _tasks_of_every_loss()[name]
    tasks = tuple(task if t.name == task.name else t for t in config.tasks)
    _assert_same_on(pretend, parts, tasks, config.model)


def test_heads_with_all_their_parts(pretend, parts, config):
    """A debiased head, one that reads another's hidden vector, and three trunks at once."""
    click, purchase, rating = config.tasks
    tasks = (
        click,
        purchase.model_copy(update={"transfer_from": "click", "hidden": ()}),
        rating.model_copy(update={"debias": "ips", "head": "ordinal", "learning_rate_scale": 0.5}),
    )
    _assert_same_on(pretend, parts, tasks, _with(config.model, ensemble_size=3))


def test_a_step_without_a_positive(pretend, parts, config):
    inputs, specs, batches = parts
    nobody = torch.zeros(0, dtype=torch.int64)
    quiet = [
        dataclasses.replace(
            b,
            labels={**b.labels, "click": torch.zeros_like(b.labels["click"])},
            negatives=dataclasses.replace(b.negatives, positive_P=nobody, num_positives=0),
        )
        for b in batches
    ]
    _assert_same_on(pretend, (inputs, specs, quiet), config.tasks, config.model)


def test_users_without_a_table(pretend, parts, config):
    inputs, specs, batches = parts
    anonymous = dataclasses.replace(inputs, user_tables=inputs.user_tables[1:])
    _assert_same_on(pretend, (anonymous, specs, batches), config.tasks, config.model)


def test_tables_that_stay_in_host_memory(pretend, parts, config):
    _assert_equal(
        _trained(parts, config.tasks, config.model, pretend, in_host=("item_id", TAGS.name)),
        _trained(parts, config.tasks, config.model, torch.device("cpu")),
    )


def test_losses_are_read_every_so_many_steps(pretend, parts, config, waits):
    counts = []
    for every in (1, STEPS):
        waits.clear()
        _trained(parts, config.tasks, config.model, pretend, read_every=every)
        counts.append(waits.count("tolist"))
    assert counts == [STEPS, 1]


class _Waits(Watcher):
    """Notes the waits inside every step of a fit."""

    def __init__(self, waits):
        self.waits, self.in_steps = waits, []

    def before_step(self, moment):
        self.waits.clear()

    def after_step(self, progress):
        self.in_steps += self.waits


@pytest.mark.parametrize("trunk", sorted(TRUNKS))
def test_no_step_waits_for_the_device(pretend, parts, config, waits, trunk):
    """The losses are read after the last step; until then the processor only queues work."""
    inputs, specs, batches = parts
    there = [batch.to(pretend) for batch in batches]
    shape = config.model.trunk.model_copy(update={"name": trunk})
    seen = _Waits(waits)
    model = _with(config.model, trunk=shape, dropout=0.0)
    _trained((inputs, specs, there), config.tasks, model, pretend, watchers=[seen], read_every=STEPS + 1)
    assert seen.in_steps == []


def test_a_tensor_left_behind_is_found(pretend):
    there = torch.ones(2, 3, device=pretend)
    for mixed in (
        lambda: there + torch.ones(2, 3),
        lambda: there[torch.arange(2)],
        lambda: torch.stack([there.sum(), torch.zeros(())]),
        lambda: torch.nn.functional.cross_entropy(there, torch.arange(2)),
        lambda: torch.zeros(4, 3).index_add_(0, torch.arange(2), there),
        there.numpy,
    ):
        with pytest.raises((RuntimeError, TypeError)):
            mixed()
    assert (there * torch.tensor(2.0)).cpu().sum() == 12, "a GPU takes a single number from the CPU"


@pytest.mark.gpu
def test_on_a_gpu_the_losses_are_the_cpus(parts, config):
    gpu = torch.device("cuda", torch.cuda.current_device())
    _assert_equal(
        _trained(parts, config.tasks, config.model, gpu, read_every=2),
        _trained(parts, config.tasks, config.model, torch.device("cpu")),
    )
