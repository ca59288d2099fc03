import numpy as np
import pytest

from recsys.config import default_config
from recsys.errors import ConfigError
from recsys.fusion import Fusion

PREDICTIONS = {
    "click": np.array([0.1, 0.5], dtype=np.float32),
    "purchase": np.array([0.05, 0.01], dtype=np.float32),
}


def test_additive_is_a_weighted_sum() -> None:
    fusion = Fusion(weights={"click": 1.0, "purchase": 10.0})
    assert fusion.score(PREDICTIONS) == pytest.approx([0.6, 0.6], rel=1e-6)


def test_multiplicative_is_a_product_of_powers() -> None:
    fusion = Fusion(weights={"click": 1.0, "purchase": 2.0}, form="multiplicative")
    assert fusion.score(PREDICTIONS) == pytest.approx([0.1 * 0.05**2, 0.5 * 0.01**2], rel=1e-5)


def test_a_prediction_of_0_gives_a_finite_score() -> None:
    fusion = Fusion(weights={"click": -1.0}, form="multiplicative")
    assert np.isfinite(fusion.score({"click": np.zeros(1, dtype=np.float32)})).all()


def test_a_request_may_replace_some_weights() -> None:
    fusion = Fusion(weights={"click": 1.0, "purchase": 10.0})
    assert fusion.override({"purchase": 0.0}).score(PREDICTIONS) == pytest.approx([0.1, 0.5], rel=1e-6)
    assert fusion.override({"click": 0.0, "purchase": 0.0}).score(PREDICTIONS).tolist() == [0.0, 0.0]
    assert fusion.override({}) is fusion


def test_a_weight_for_an_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no task is called 'like'; known tasks: click"):
        Fusion(weights={"click": 1.0}).override({"like": 1.0})


def test_weights_come_from_the_tasks() -> None:
    weights = Fusion.from_tasks(default_config().tasks).weights
    assert weights == {"click": 1.0, "purchase": 5.0, "rating": 0.02}
