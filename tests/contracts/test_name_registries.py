"""A trunk, an encoder, a balancer and a store of this file alone: a night and a server use them by name."""

import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from features.store import STORES, open_store
from features.store.sqlite import SQLiteStore
from recsys.bundle import load_bundle
from recsys.cli import run
from recsys.errors import ConfigError
from recsys.model.layers import mlp
from recsys.model.sequence import ENCODERS
from recsys.model.sequence.encoder import SequenceEncoder, SequenceLayer
from recsys.model.trunks import TRUNKS
from recsys.model.trunks.trunk import Trunk
from recsys.registry import Registry
from recsys.settings import to_toml
from serving.loading import load_model
from training.balancing import BALANCERS, Entry
from training.balancing.weights import weighted_backward
from training.night.run import check_names
from training.trainer.group import ALONE
from training.tune.space import default_space

DAY = date(2026, 1, 28)


class Summed(Trunk):
    """Two networks for all tasks, added up."""

    def __init__(self, num_in, tasks, shape, dropout):
        super().__init__(num_in, tasks, shape, dropout)
        self.first, self.second = (mlp(num_in, shape.hidden, dropout) for _ in range(2))

    def forward(self, x_BI):
        return dict.fromkeys(self.tasks, self.first(x_BI) + self.second(x_BI))


class Summing(SequenceLayer):
    """Adds up a list's events."""

    def __init__(self, shape):
        super().__init__(shape)
        self.mixed = torch.nn.Linear(shape.dim, shape.dim)

    def forward(self, x_ED, minutes_E, lists):
        parts = (x_ED, x_ED, self.mixed(x_ED))
        return x_ED + self.look_back(parts, lists, minutes_E, lambda score: (score > -torch.inf).float())


class AddsUp(SequenceEncoder):
    """One layer that adds up."""

    layer = Summing


class Scaled:
    """Every weight times alpha; keeps the steps it made."""

    steps: ClassVar[list[float]] = []

    def __init__(self, weights, alpha):
        self.weights = {name: alpha * weight for name, weight in weights.items()}
        self.alpha = alpha

    def backward(self, losses, shared_parameters, boundary, group=ALONE):
        self.steps.append(self.alpha)
        return weighted_backward(losses, self.weights)


class ToyStore(SQLiteStore):
    """SQLite in a folder of its own; keeps what it was opened with."""

    opened: ClassVar[list[str]] = []

    @classmethod
    def from_config(cls, config, folder):
        cls.opened.append(config.url)
        return super().from_config(config, folder / "toy")


@pytest.fixture(scope="module", autouse=True)
def _toys():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRUNKS, "summed", Summed)
        patch.setitem(ENCODERS, "adds_up", AddsUp)
        patch.setitem(BALANCERS, "scaled", Entry(Scaled, ("alpha",)))
        patch.setitem(STORES, "toy", f"{__name__}:ToyStore")
        yield


@pytest.fixture(scope="module")
def toy_config(make_config):
    return make_config(
        gate={"min_rows": 100_000},  # a shop this small cannot be evaluated
        model={"trunk": {"name": "summed", "hidden": [8]}, "history": {"encoder": "adds_up", "dim": 8}},
        training={"balancing": "scaled", "balancer": {"alpha": 3.0}, "refit": False},
        store={"url": "toy://anywhere"},
    )


@pytest.fixture(scope="module")
def runs(shop_log, toy_config, tmp_path_factory):
    """Run a night as a user would."""
    folder = tmp_path_factory.mktemp("night")
    config, runs = folder / "toys.toml", folder / "runs"
    config.write_text(to_toml(toy_config.model_dump(mode="json", by_alias=True, exclude_none=True)))
    place = ["--log", str(shop_log.root), "--runs", str(runs)]
    assert run(["nightly", "--config", str(config), *place, "--date", str(DAY)]) == 0
    return runs


@pytest.fixture(scope="module")
def bundle(runs):
    registry = Registry(runs)
    return load_bundle(registry.path(registry.current()))


def test_the_trunk_is_trained_and_in_the_bundle(bundle, toy_config):
    assert bundle.config.model.trunk.name == "summed"
    for network in ("first", "second"):
        weights = [v for k, v in bundle.weights.items() if k.startswith(f"ranker.trunk.{network}.")]
        assert weights
        assert all(weight.any() for weight in weights), "biases start at 0 and are trained"
    assert "summed" in default_space(toy_config)["model.trunk.name"].choices


def test_the_encoder_of_sequences_is_trained_and_in_the_bundle(bundle):
    assert bundle.config.model.history.encoder == "adds_up"
    mixed = [v for k, v in bundle.weights.items() if k.startswith("ranker.history.encoder.layers.0.mixed")]
    assert len(mixed) == 2
    assert all(weight.any() for weight in mixed)


def test_the_balancer_made_every_step_with_its_option(bundle):
    assert Scaled.steps
    assert set(Scaled.steps) == {3.0}


def test_the_store_holds_what_the_night_published_and_a_server_reads(bundle, runs, toy_config):
    assert set(ToyStore.opened) == {"toy://anywhere"}
    assert list((runs / "store" / "toy").iterdir()), "it was given the runs' folder"
    store = open_store(toy_config.store, runs)
    assert store.current() == bundle.version
    model = load_model(bundle.path, store)  # the golden requests: trunk and features as they were trained
    assert model.features.user("u000001", bundle.manifest.snapshot_at_ms).known


@pytest.mark.parametrize(
    ("section", "known"),
    [
        ({"model": {"trunk": {"name": "sumed"}}}, r"\[model.trunk\] name = 'sumed'.*mmoe.*summed"),
        (
            {"model": {"history": {"encoder": "gru"}}},
            r"\[model.history\] encoder = 'gru'.*adds_up.*attention.*hstu.*sasrec",
        ),
        ({"training": {"balancing": "scald"}}, r"\[training\] balancing = 'scald'.*fixed.*scaled"),
        ({"store": {"url": "toi"}}, r"\[store\] url = 'toi'.*sqlite.*toy"),
        (
            {"training": {"balancing": "scaled", "balancer": {"c": 1.0}}},
            "'scaled' does not read it, it reads alpha",
        ),
    ],
)
def test_a_night_refuses_a_wrong_name_and_lists_the_toy(make_config, section, known):
    with pytest.raises(ConfigError, match=known):
        check_names(make_config(**section))


def test_the_contract_of_stores_covers_every_scheme():
    """A new line in STORES is tested without another one here."""
    script = "from features.store import STORES; STORES['toy'] = STORES['sqlite']; import pytest, sys; "
    suite = Path(__file__).with_name("test_stores.py")
    command = [sys.executable, "-c", f"{script} sys.exit(pytest.main(['--co', '-q', {str(suite)!r}]))"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "test_append_is_idempotent[toy]" in found
    assert found.count("[toy]") == found.count("[sqlite]")
