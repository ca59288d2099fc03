"""What reading a history costs with each encoder: `python -m benchmarks.speed.history_encoders`.

Processor time. Serving: the user's side of a request. Training: the history's part of a step, forward and
backward, for 2,000 rows of 250 users, who were shown four items at each of two instants; at the second they
had one event more.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from benchmarks.speed.random_scorer import random_request, random_scorer, shop_of
from features.sequences import EncodedEvents, history_slices
from recsys.batch import HistoryIndex
from recsys.config import HistoryConfig, RunConfig
from recsys.model.sequence import ENCODERS
from recsys.model.sequence.history import build_history
from recsys.shapes import ATTENTION
from training.data.sequences import Sequences

EVENTS = (50, 200)
USERS, SHOWN, INSTANTS = 250, 4, 2
ITEMS, ITEM_DIM, ATTENTION_DIM, KINDS = 10_000, 32, 32, 3
_NEVER = np.iinfo(np.int64).max


def main(serving_calls: int = 200, training_calls: int = 3) -> None:
    """Print a line per length of the history and encoder."""
    torch.set_num_threads(1)
    for events in EVENTS:
        for name in (ATTENTION, *ENCODERS):
            shape = HistoryConfig(encoder=name)
            served = _median_ms(served_user(shape, events), serving_calls)
            trained = _median_ms(training_step(shape, events), training_calls)
            print(f"{events} events, {name}: {served:.2f} ms a request, {trained:.0f} ms a step of training")


def served_user(shape: HistoryConfig, events: int) -> Callable[[], object]:
    """Give what a request computes of its user."""
    scorer = random_scorer(_with(shop_of(8, 64), shape, events), ITEMS)
    return partial(scorer.user_side, random_request(scorer, 1).user)


def training_step(shape: HistoryConfig, events: int) -> Callable[[], object]:
    """Give the history's part of a step."""
    torch.manual_seed(0)
    index = histories(events, sequences=shape.encoder != ATTENTION)
    history = build_history(ITEM_DIM, ATTENTION_DIM, KINDS, shape)
    rows_UD = torch.randn(ITEMS, ITEM_DIM, requires_grad=True)
    query_BA = torch.randn(index.start_B.shape[0], ATTENTION_DIM)

    def step() -> None:
        found, summary_BA = history(rows_UD, index)
        torch.autograd.backward(found.attend(query_BA).sum() + summary_BA.sum())

    return step


def histories(events: int, *, sequences: bool) -> HistoryIndex:
    """Draw a batch's histories, all of them at their full length."""
    rng, logged = np.random.default_rng(0), events + INSTANTS - 1
    num = USERS * logged
    day = EncodedEvents(
        items=rng.integers(0, ITEMS, num),
        kinds=rng.integers(1, KINDS + 1, num),
        at=np.tile(np.arange(logged) * 3_600_000, USERS),
        void=np.full(num, _NEVER),
    )
    first = np.repeat(np.arange(USERS) * logged, SHOWN * INSTANTS)
    seen = np.tile(np.repeat(np.arange(INSTANTS), SHOWN), USERS) + events
    state_at = np.full(first.size, logged * 3_600_000)
    found = history_slices(first, first + seen, events, state_at, 0, day)
    item_E = torch.from_numpy(found.items)
    return HistoryIndex(
        item_E=item_E,
        kind_E=torch.from_numpy(found.kinds),
        age_E=torch.from_numpy(found.ages),
        owner_E=torch.from_numpy(found.rows),
        start_B=torch.from_numpy(found.offsets[:-1]),
        by_item_E=item_E.argsort(stable=True),
        sequences=Sequences.of(found).index(found, day, item_E) if sequences else None,
    )


def _with(config: RunConfig, shape: HistoryConfig, events: int) -> RunConfig:
    model = config.model.model_copy(update={"history": shape})
    features = config.features.model_copy(update={"history_length": events})
    return config.model_copy(update={"model": model, "features": features})


def _median_ms(call: Callable[[], object], calls: int) -> float:
    call()
    taken = []
    for _ in range(calls):
        start = time.process_time_ns()
        call()
        taken.append(time.process_time_ns() - start)
    return float(np.median(taken)) / 1e6


if __name__ == "__main__":
    main()
