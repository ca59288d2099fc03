"""Chooses, when a version is loaded, what computes its logits on this host."""

from collections.abc import Callable, Mapping

import numpy as np
import structlog

from features.golden import golden_requests
from features.loading import Answering
from recsys.bundle import Bundle
from recsys.device import CPU, has_fast_bf16
from recsys.model.engines import Choice, Engine, Sample, bfloat16, choose
from recsys.model.scorer import Scorer

_CANDIDATES = 500
_SAMPLES = 4
_log = structlog.get_logger(__name__)


def choose_engine(loaded: Answering[Bundle, Scorer], name: str) -> str:
    """Give the scorer its engine, and answer the golden requests with it.

    Args: name: `[serving] engine`. Returns: the engine's name.
    Raises: BundleError when this host does not reproduce the bundle.
    """
    loaded.check_golden()
    others = _offered(loaded.scorer) if name == "auto" else []
    if not others:
        return loaded.scorer.engine.name
    choice = choose(loaded.scorer.engine, others, _samples(loaded))
    _tell(choice)
    if choice.engine is not loaded.scorer.engine:
        loaded.scorer.engine = choice.engine
        loaded.check_golden("fp32" if choice.engine.exact else "bf16")
    return choice.engine.name


def _offered(scorer: Scorer) -> list[Engine]:
    """List the engines, beside the scorer's own, that may be faster here."""
    if scorer.device != CPU or not has_fast_bf16(CPU):
        return []
    return [bfloat16(scorer.network)]


def _samples(loaded: Answering[Bundle, Scorer]) -> list[Sample]:
    """Make requests of golden users, each for other items."""
    scorer, rng = loaded.scorer, np.random.default_rng(0)
    num_items = len(scorer.item_embeddings)
    found = []
    for user, context in golden_requests(loaded.bundle.golden, loaded.features, _SAMPLES):
        rows = np.sort(rng.choice(num_items, min(_CANDIDATES, num_items), replace=False))
        inputs = scorer.candidate_inputs(scorer.user_side(user), context, rows)
        found.append(Sample(inputs, _shares(scorer)))
    return found


def _shares(scorer: Scorer) -> Callable[[np.ndarray], Mapping[str, np.ndarray]]:
    """Give what turns logits [C, N] into predictions as shares of their range."""
    ranges = {task.name: task.prediction_range for task in scorer.tasks}

    def shares(logits_CN: np.ndarray) -> dict[str, np.ndarray]:
        found = scorer.calibrated(scorer.network.split(logits_CN))
        return {t: (values - ranges[t][0]) / (ranges[t][1] - ranges[t][0]) for t, values in found.items()}

    return shares


def _tell(choice: Choice) -> None:
    milliseconds = {name: round(value, 3) for name, value in choice.milliseconds.items()}
    _log.info("engine_chosen", engine=choice.engine.name, milliseconds=milliseconds, refused=choice.refused)
