"""HEAD_KINDS: everything that the project knows of a kind of head, one entry each.

Config, labels, aggregates, histories, losses, calibration, evaluation and the gate ask this table; no other
file names a kind. Functions are named "module:function" and imported when they are used (`recsys.resolve`),
so that reading the table loads no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

UNCALIBRATED = "none"
"""The calibrator that every kind has: for `[calibration]` to choose, and for a head without any label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadKind:
    """What a head's output means, how it is trained and calibrated, and what is kept of its feedback."""

    link: str
    """Function: task -> module that turns a score [B] into logits, [B] or [B, C]."""
    predict: str
    """Function: logits, task -> prediction [B] in the unit of the label."""
    losses: Mapping[str, str]
    """Name in the config -> function: logits, label [B], task -> loss [B]. The first is the default."""
    calibrators: Mapping[str, str]
    """Name in the config -> function: `recsys.calibrators.HeadRows`, task -> Calibrator. The first is the
    default; `none` is always there."""
    metric: str
    """The primary metric: the gate compares bundles by it."""
    batch_metric: str
    """What a training's batches are measured by: their rows are of any users, so it is of single rows."""
    probability: bool
    """Whether the prediction is a probability: logits are [B], the prediction is their sigmoid, the head can
    have a parent or a child, and its calibration error is checked."""
    label: Literal["event", "value"]
    """event: 1 where the feedback came. value: the feedback's last value, clipped to [low, high]."""
    aggregate: Literal["rate", "mean"]
    """What is kept of the feedback beside its count. rate: how much of it names an impression. mean: the sum
    of its values, in whole steps."""
    history: Literal["event", "bins"]
    """How a history shows the feedback. event: that it came. bins: its value, in bins of equal mass."""
    options: Mapping[str, float]
    """Options of the value's range that the kind reads (low, high, step) -> default."""
    levels: bool = False
    """Whether the values are the levels low, low + step, …, high and no others."""


_PROBABILITY_CALIBRATORS = {
    "platt": "recsys.calibrators:platt",
    "platt_items": "recsys.calibrators:platt_items",
    "isotonic": "recsys.calibrators:isotonic_probability",
    "auto": "recsys.calibrators:platt_or_isotonic",
    UNCALIBRATED: "recsys.calibrators:sampling_correction",
}
_VALUE_CALIBRATORS = {
    "affine": "recsys.calibrators:affine",
    "isotonic": "recsys.calibrators:isotonic",
    UNCALIBRATED: "recsys.calibrators:identity",
}

HEAD_KINDS: dict[str, HeadKind] = {
    "binary": HeadKind(
        link="recsys.model.head_functions:score_itself",
        predict="recsys.model.head_functions:probability",
        losses={
            "bce": "recsys.model.head_functions:cross_entropy",
            "focal": "recsys.model.head_functions:focal",
        },
        calibrators=_PROBABILITY_CALIBRATORS,
        metric="list_auc",
        batch_metric="auc",
        probability=True,
        label="event",
        aggregate="rate",
        history="event",
        options={},
    ),
    "regression": HeadKind(
        link="recsys.model.head_functions:score_itself",
        predict="recsys.model.head_functions:value",
        losses={
            "mse": "recsys.model.head_functions:squared_error",
            "huber": "recsys.model.head_functions:huber",
            "mae": "recsys.model.head_functions:absolute_error",
        },
        calibrators=_VALUE_CALIBRATORS,
        metric="rmse",
        batch_metric="rmse",
        probability=False,
        label="value",
        aggregate="mean",
        history="bins",
        options={"low": 1.0, "high": 5.0, "step": 0.5},
    ),
    "ordinal": HeadKind(
        link="recsys.model.head_functions:CumulativeLink",
        predict="recsys.model.head_functions:expected_level",
        losses={"likelihood": "recsys.model.head_functions:likelihood"},
        calibrators=_VALUE_CALIBRATORS,
        metric="rmse",
        batch_metric="rmse",
        probability=False,
        label="value",
        aggregate="mean",
        history="bins",
        options={"low": 1.0, "high": 5.0, "step": 1.0},
        levels=True,
    ),
}
"""Name in the config (`[[task]] head`) -> the kind."""
