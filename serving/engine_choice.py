"""Chooses, when a version is loaded, what computes its logits on this host."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import structlog

from features.golden import golden_requests
from features.loading import Answering
from recsys.bundle import Bundle
from recsys.errors import BundleError
from recsys.model.engines import BFLOAT16, Choice, Engine, Sample, bfloat16, bfloat16_trunks, choose
from recsys.model.scorer import Scorer
from serving.devices import multiplies_bfloat16

_CANDIDATES = 500
_SAMPLES = 4
_log = structlog.get_logger(__name__)


def choose_engine(loaded: Answering[Bundle, Scorer], name: str) -> Choice:
    """Give the scorer its engine, and answer the golden requests with it.

    What is chosen by time must not cost a version: an engine that misses the golden requests gives way to
    float32, which reproduced them. Each process decides for itself, as it is its own numbers that it serves.
    Args: name: `[serving] engine`.
    Raises: BundleError when this host does not reproduce the bundle, or does not with the engine that `name`
    asks for.
    """
    loaded.check_golden()
    if name == BFLOAT16:
        return _named(loaded, bfloat16(loaded.scorer.network))
    others = _offered(loaded.scorer) if name == "auto" else []
    if not others:
        return Choice(loaded.scorer.engine)
    choice = _fastest_proved(loaded, others)
    loaded.scorer.engine = choice.engine
    _tell(choice)
    return choice


def _named(loaded: Answering[Bundle, Scorer], engine: Engine) -> Choice:
    """Take an engine unmeasured."""
    missed = _missed(loaded, engine)
    if missed is not None:
        remedy = f'float32 reproduces it: write [serving] engine = "auto", or "{loaded.scorer.engine.name}"'
        raise BundleError(f'[serving] engine = "{engine.name}": {missed}; {remedy}')
    loaded.scorer.engine = engine
    return Choice(engine)


def _fastest_proved(loaded: Answering[Bundle, Scorer], others: Sequence[Engine]) -> Choice:
    """Choose the fastest engine that reproduces the golden requests; the scorer's own has done so."""
    own, samples = loaded.scorer.engine, _samples(loaded)
    refused: dict[str, str] = {}
    while True:
        left = [engine for engine in others if engine.name not in refused]
        choice = choose(own, left, samples) if left else Choice(own)
        choice = replace(choice, refused={**refused, **choice.refused})
        missed = None if choice.engine is own else _missed(loaded, choice.engine)
        if missed is None:
            return choice
        refused[choice.engine.name] = missed


def _missed(loaded: Answering[Bundle, Scorer], engine: Engine) -> str | None:
    """Say how an engine misses the golden requests; None: it reproduces them. The scorer keeps its own."""
    own = loaded.scorer.engine
    loaded.scorer.engine = engine
    try:
        loaded.check_golden("fp32" if engine.exact else "bf16")
    except BundleError as error:
        return str(error)
    except RuntimeError as error:
        return f"it fails: {str(error).splitlines()[0]}"
    finally:
        loaded.scorer.engine = own
    return None


def _offered(scorer: Scorer) -> list[Engine]:
    """List the engines, beside the scorer's own, that may be faster here."""
    if not multiplies_bfloat16(scorer.device):
        return []
    trunks = bfloat16_trunks(scorer.network)
    return [bfloat16(scorer.network), *([] if trunks is None else [trunks])]


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
    for name, why in choice.refused.items():
        _log.warning("engine_refused", engine=name, reason=why, answers_with=choice.engine.name)
    milliseconds = {name: round(value, 3) for name, value in choice.milliseconds.items()}
    _log.info("engine_chosen", engine=choice.engine.name, milliseconds=milliseconds, refused=choice.refused)
