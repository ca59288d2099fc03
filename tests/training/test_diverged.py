"""A training that diverges: where it stops, what it saves, and the step made again."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recsys.errors import ConfigError, DataError
from training.errors import DivergedError
from training.host_choice import HostChoice
from training.replay import replay
from training.train import begin_fit, train
from training.trainer.batch_file import batch_tensors, read_batch
from training.trainer.group import Group
from training.trainer.guard import FACTOR, REFERENCE_STEPS, Explosion, Guard
from training.trainer.watcher import Watcher


class _Poison(Watcher):
    """Puts a NaN into a step's batch and remembers its losses of the step."""

    def __init__(self, step, rows=3):
        self.step, self.rows, self.losses = step, rows, {}

    def before_step(self, moment):
        if moment.step == self.step:
            moment.batch.item_numbers_BF[self.rows, 0] = math.nan
            self.random = torch.get_rng_state()
            self.losses = {k: v.item() for k, v in moment.losses(moment.rows).items()}
            torch.set_rng_state(self.random)


def _train(chain, config, folder, **options):
    return train(chain, {t.name: (0, 3) for t in config.tasks}, config, None, 1, diverged=folder, **options)


@pytest.fixture(scope="module")
def poisoned(shop_chain, config, tmp_path_factory):
    folder, watcher = tmp_path_factory.mktemp("runs") / "diverged", _Poison(5)
    with pytest.raises(ConfigError) as caught:
        _train(shop_chain, config, folder, watchers=[watcher])
    return folder / "step-000000005", watcher, str(caught.value)


def test_the_message_names_tasks_step_file_and_remedy(poisoned):
    folder, watcher, message = poisoned
    bad = ", ".join(name for name, loss in watcher.losses.items() if math.isnan(loss))
    assert bad
    assert message == (
        f"the loss of {bad} is not finite at step 5; lower [training] learning_rate. Its batch, random state "
        f"and weights are in {folder}: `recsys train replay {folder}` makes the step again"
    )


def test_a_new_heads_pass_has_the_same_guard(shop_chain, config, tmp_path):
    """Its step is made again with the new head's loss alone."""
    poison = _Poison(5, slice(None))  # few rows have a rating
    with pytest.raises(ConfigError, match=r"loss of rating is not finite at step 5; .*makes the step again"):
        _train(shop_chain, config, tmp_path, watchers=[poison], alone=("rating",))
    again = replay(tmp_path / "step-000000005")
    assert again.losses == pytest.approx(poison.losses, rel=1e-6, nan_ok=True)
    assert set(again.losses) == set(again.gradients) == {"rating"}
    assert again.not_finite == ("batch: item_numbers_BF",)


def test_a_balancers_error_is_that_of_the_loss_before_it(shop_chain, make_config, tmp_path):
    """Losses wait on a device: the gradients of a bad one are seen first."""
    config = make_config(training={"balancing": "upgrad"})
    periods = {t.name: (0, 3) for t in config.tasks}
    first = begin_fit(shop_chain, periods, config, None, 1, config.tasks, HostChoice())
    inputs = dataclasses.replace(
        first.inputs, settings=dataclasses.replace(first.inputs.settings, read_every=50)
    )
    watchers = [_Poison(5), Guard(tmp_path, lambda _folder: None)]
    with pytest.raises(
        DivergedError, match=r"is not finite at step 5; .*step-000000005` makes the step again"
    ):
        inputs.fit(first.ranker, first.tables, watchers)
    assert (tmp_path / "step-000000005").is_dir()


def test_the_step_made_again_has_the_same_losses_and_names_the_bad_values(poisoned):
    folder, watcher, _ = poisoned
    again = replay(folder)
    assert again.step == 5
    assert again.losses == pytest.approx(watcher.losses, rel=1e-6, nan_ok=True)
    assert again.not_finite == ("batch: item_numbers_BF",)
    assert set(again.gradients) == set(watcher.losses)


def test_a_folder_without_a_step_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no saved step"):
        replay(tmp_path)


def test_a_disk_that_is_full_does_not_hide_the_divergence(shop_chain, config, tmp_path):
    (tmp_path / "diverged").write_text("a file where the folder should be")
    with pytest.raises(DivergedError, match=r"not finite at step 2; .* could not be saved: "):
        _train(shop_chain, config, tmp_path / "diverged", watchers=[_Poison(2)])


class _Counted(Group):
    """Counts the sums that a rank makes with others."""

    def __init__(self):
        self.sums = 0

    def sum_(self, tensors):
        self.sums += 1


def test_weights_that_cannot_be_gathered_do_not_hide_the_divergence(tmp_path):
    """Ranks that share the tables gather them through files of rank 0."""

    def full():
        raise OSError("No space left on device")

    guard = Guard(tmp_path, lambda _folder: None, group=_Counted())
    guard.before_step(SimpleNamespace(step=3, batch=None))
    with pytest.raises(DivergedError, match=r"^bad. The step could not be saved: No space left on device$"):
        guard.on_diverged(DivergedError("bad", 3), full)
    assert guard.group.sums == 1, "the others hear of it where they wait"


@dataclasses.dataclass
class _Keep(Watcher):
    batches: list = dataclasses.field(default_factory=list)

    def before_step(self, moment):
        self.batches.append(moment.batch)


def test_a_batch_goes_to_tensors_and_back(shop_chain, config):
    keep = _Keep()
    _train(shop_chain, config, None, watchers=[keep])
    for batch in (keep.batches[0], dataclasses.replace(keep.batches[0], negatives=None)):
        tensors = batch_tensors(batch)
        again = read_batch(tensors)
        assert type(again) is type(batch)
        assert (again.negatives is None) == (batch.negatives is None)
        found = batch_tensors(again)
        assert list(found) == list(tensors)
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def _until(losses):
    seen = Explosion()
    for step, loss in enumerate(losses):
        if seen.see({"click": float(loss)}):
            return step
    return None


def test_a_loss_explodes_when_its_average_is_five_times_that_of_the_first_steps():
    rng = np.random.default_rng(0)
    steady = rng.lognormal(-1, 0.3, 3000)
    assert _until(steady) is None
    assert REFERENCE_STEPS < _until(np.r_[steady[:500], np.full(500, 50.0)]) < 520
    assert _until(np.r_[steady[:500], np.full(5000, 0.9 * FACTOR * steady[:100].mean())]) is None


def test_what_is_not_observed_or_small_never_explodes():
    assert _until(np.r_[np.zeros(900), np.full(100, 0.5), np.zeros(500), np.full(3000, 0.5)]) is None
    assert _until(np.r_[np.full(200, 0.001), np.full(3000, 0.6)]) is None, "below a coin's loss"


class _Push(Watcher):
    """Says a click is certain, again before every step from one on."""

    def __init__(self, step):
        self.step = step

    def before_step(self, moment):
        if moment.step >= self.step:
            list(moment.learner.heads.heads["click"].parameters())[-1].data.fill_(1e4)


def test_a_loss_that_explodes_ends_the_training(shop_chain, make_config, tmp_path):
    config = make_config(training={"batch_size": 20})
    step = REFERENCE_STEPS + 10
    with pytest.raises(
        DivergedError, match=r"the loss of click explodes at step 11\d: its average is"
    ) as caught:
        _train(shop_chain, config, tmp_path, watchers=[_Push(step)])
    (folder,) = tmp_path.iterdir()
    again = replay(folder)
    assert again.step == caught.value.step
    assert again.losses["click"] > 1e3
    assert not again.not_finite
