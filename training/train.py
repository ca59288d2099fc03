"""Snapshots -> weights: a cold start, a warm start, or the continuation after PROMOTE."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch

from features.days import Days
from features.encode import Encoder
from features.fit import FitFrames, fit_encoder, with_hashed_users
from recsys.config import RunConfig, TrainingConfig
from recsys.device import resolve_device
from recsys.encoding import EncoderState
from recsys.errors import ConfigError
from recsys.model.embeddings import LocalTables
from recsys.model.ranker import Ranker
from recsys.tasks import TaskSpec
from recsys.user_key import UserKey
from training.build_model import build_model
from training.data import (
    Batcher,
    Cutting,
    EncodedDay,
    EncodedDays,
    EncodedRows,
    count_steps,
    encode_learned_day,
    positive_share,
    sizes_of,
    text_by_number,
)
from training.data.list_rows import ListRows
from training.evaluation.examination import examination_for_lists
from training.evaluation.list_groups import learned_lists
from training.fit_inputs import FitInputs, batch_settings
from training.host_choice import HostChoice
from training.new_parts import NewInputs, NewParts
from training.past_rows import periods_of_a_table
from training.processes.parent import fit_in_processes
from training.saved_step import guard_of
from training.sharding.plan import check_sharding
from training.table_placement import on_device
from training.trainer.checkpoint import Checkpoint
from training.trainer.settings import FitSettings, read_every
from training.trainer.train_log import TrainLog
from training.trainer.watcher import Watcher
from training.trainer.weights import canonical
from training.warm_start import Carried, Previous, carry_over

MAX_CONTEXT_PERIODS = 7
"""Numbers of contexts are standardised on this many of the last training periods, those of users and items by
how often they were in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """Weights, in host memory, and everything needed to use them."""

    ranker: Ranker
    tables: LocalTables
    state: EncoderState
    log: TrainLog
    carried: Carried | None = None
    """What a warm start did not take over; None for a cold start."""

    def weights(self) -> dict[str, np.ndarray]:
        """Give canonical weights: `ranker.*`, `table.<name>.weight`, `table.<name>.state`."""
        return canonical(self.ranker, self.tables)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What every training on the same features and days reads: fitted once, encoded once, all in memory."""

    state: EncoderState
    encoded: Mapping[int, EncodedRows]
    """By period; labels that a task is not trained on are hidden."""

    @property
    def lists(self) -> bool:
        """Tell whether rows have their lists: without them a training of the order encodes the days anew."""
        return all(day.lists is not None for day in self.encoded.values())


def prepare(days: Days, periods: dict[str, tuple[int, int]], config: RunConfig) -> Prepared:
    """Fit the encoder of a cold start and encode its days; args as `train`."""
    chosen = _chosen(periods)
    state = fit_state(days, chosen, config, None)
    encoder, lists = Encoder.from_config(config, state), _lists(days, periods, config)
    encoded = {i: _encode(days, periods, config, encoder, lists, i) for i in chosen}
    return Prepared(state=state, encoded=encoded)


def train(
    days: Days,
    periods: dict[str, tuple[int, int]],
    config: RunConfig,
    previous: Previous | None,
    epochs: int,
    *,
    tasks: Sequence[TaskSpec] | None = None,
    watchers: Sequence[Watcher] = (),
    start: Checkpoint | None = None,
    diverged: Path | None = None,
    prepared: Prepared | None = None,
    folder: Path | None = None,
    alone: Sequence[str] = (),
    new_inputs: bool = False,
    choice: HostChoice | None = None,
    user_key: UserKey | None = None,
) -> TrainedModel:
    """Train on each task's own days.

    Args:
        periods: per task, the places of the first and last day it is trained on; labels elsewhere are hidden.
        previous: continue these weights; their vocabularies and statistics stay as they are and grow.
        tasks: the heads to build and train, default all; features are those of all the config's tasks.
        watchers: see every step of the fit.
        start: go on from here; the batches before it are not read again. Several processes read it
            themselves, where the Saver among the watchers keeps it.
        diverged: the folder in which a step is saved whose loss is not finite or explodes.
        prepared: what `prepare` made of the same days, periods and features; the result is the same.
        folder: where encoded days are kept for the next epoch and for a run after a kill; the caller removes
            it. Without one, a day is encoded in memory whenever it is read.
        alone: train what these heads have of their own, as in a cold start, and nothing else.
        new_inputs: the same for what reads inputs that `previous` does not have, by all losses.
        choice: precision, processes and the form of tables; several processes need a folder. Default: the
            config's precision (`auto`: fp32), in one process.
        user_key: what users' ids are hashed with; default: as in `previous`, in a cold start not at all.
    """
    tasks = config.tasks if tasks is None else tasks
    choice = choice or HostChoice(precision=HostChoice.unmeasured(config.training).precision)
    device = _device(config.training, choice)
    first = begin_fit(
        days,
        periods,
        config,
        previous,
        epochs,
        tasks,
        choice,
        prepared=prepared,
        folder=folder,
        alone=alone,
        new_inputs=new_inputs,
        user_key=user_key,
    )
    if choice.in_ranks and first.inputs.num_steps:
        log = _fit_in_processes(first, config.training, choice, watchers, diverged)
    else:
        log = _fit_here(first, device, watchers, start, diverged)
    return TrainedModel(
        ranker=first.ranker, tables=first.tables, state=first.inputs.state, log=log, carried=first.carried
    )


def _device(training: TrainingConfig, choice: HostChoice) -> torch.device:
    """Say where the fit runs, before anything is encoded for it."""
    device = resolve_device(training.device)
    if device.type == "cuda" and choice.processes > torch.cuda.device_count():
        raise ConfigError(
            f"[training] processes = {choice.processes}: each process has a GPU of its own, and there are "
            f'{torch.cuda.device_count()}; take as many at most, or device = "cpu"'
        )
    return device


@dataclass(frozen=True, slots=True, kw_only=True)
class FitStart:
    """What a fit begins with."""

    inputs: FitInputs
    ranker: Ranker
    tables: LocalTables
    carried: Carried | None


def _fit_in_processes(
    first: FitStart,
    training: TrainingConfig,
    choice: HostChoice,
    watchers: Sequence[Watcher],
    diverged: Path | None,
) -> TrainLog:
    sharded = choice.tables == "sharded"
    if sharded:
        check_sharding(training, first.tables.specs.values())
    return fit_in_processes(
        first.inputs, first.ranker, first.tables, choice.processes, watchers, diverged, sharded=sharded
    )


def _fit_here(
    first: FitStart,
    device: torch.device,
    watchers: Sequence[Watcher],
    start: Checkpoint | None,
    diverged: Path | None,
) -> TrainLog:
    if diverged is not None:
        watchers = [guard_of(first.inputs, diverged, start), *watchers]
    with on_device(first.ranker, first.tables, device):
        return first.inputs.fit(first.ranker, first.tables, watchers, start)


def begin_fit(
    days: Days,
    periods: Mapping[str, tuple[int, int]],
    config: RunConfig,
    previous: Previous | None,
    epochs: int,
    tasks: Sequence[TaskSpec],
    choice: HostChoice,
    *,
    prepared: Prepared | None = None,
    folder: Path | None = None,
    alone: Sequence[str] = (),
    new_inputs: bool = False,
    user_key: UserKey | None = None,
) -> FitStart:
    """Fit the encoder and build the model; args as `train`."""
    torch.manual_seed(config.training.seed)
    chosen = _chosen(periods)
    state = prepared.state if prepared else fit_state(days, chosen, config, previous, user_key)
    encoder = Encoder.from_config(config, state)
    last = days[chosen[-1] if chosen else -1]
    text_VT = text_by_number(encoder, last.table("items"))
    ranker, tables = build_model(config, state, tasks)
    carried = carry_over(ranker, tables, state, config, previous, text_VT) if previous is not None else None
    came = carried.came if carried is not None and new_inputs else NewInputs()
    parts = NewParts(heads=tuple(alone), inputs=came)
    retrieves = config.retrieval.weight and chosen and not (parts and not came)
    retrieval = config.retrieval_task if retrieves else None
    steps, warm = num_steps(days, periods, config, epochs), previous is not None and not parts
    inputs = FitInputs(
        config=config,
        tasks=tasks,
        state=state,
        text=text_VT,
        popularity=retrieval_popularity(days, chosen, config, state) if retrieval else None,
        days=sizes_of(days, chosen),
        epochs=epochs,
        settings=fit_settings(config, steps, warm=warm, choice=choice),
        read_day=_day_reader(days, periods, config, encoder, prepared, folder),
        alone=parts,
        examination=examination_for_lists(days, chosen, config),
    )
    return FitStart(inputs=inputs, ranker=ranker, tables=tables, carried=carried)


def _day_reader(
    days: Days,
    periods: Mapping[str, tuple[int, int]],
    config: RunConfig,
    encoder: Encoder,
    prepared: Prepared | None,
    folder: Path | None,
) -> Callable[[int], EncodedDay]:
    """Choose where the rows of a period come from: prepared ones, files in a folder, or encoded when read."""
    lists = _lists(days, periods, config)
    if prepared is not None and (lists is None or prepared.lists):
        return prepared.encoded.__getitem__
    if folder is None:
        return partial(_encode, days, periods, config, encoder, lists)
    return EncodedDays(
        folder=folder,
        encoder=encoder,
        days=days.labelled_for(config.tasks),
        tasks=config.tasks,
        hidden=partial(_hidden, periods),
        piece_rows=config.training.chunk_rows,
        lists=lists,
        past_every=periods_of_a_table(len(_chosen(periods))),
        stream_odds=config.training.stream_odds,
    )


def num_steps(days: Days, periods: Mapping[str, tuple[int, int]], config: RunConfig, epochs: int) -> int:
    """Count the steps of a training."""
    return count_steps(sizes_of(days, _chosen(periods)).values(), Cutting.from_config(config), epochs)


def _chosen(periods: Mapping[str, tuple[int, int]]) -> list[int]:
    """List every period that some task learns."""
    return sorted({i for first, last in periods.values() for i in range(first, last + 1)})


def _encode(
    days: Days,
    periods: Mapping[str, tuple[int, int]],
    config: RunConfig,
    encoder: Encoder,
    lists: ListRows | None,
    i: int,
) -> EncodedRows:
    """Encode a day in memory, with the labels hidden that a task is not trained on."""
    every = periods_of_a_table(len(_chosen(periods)))
    labelled, odds = days.labelled_for(config.tasks), config.training.stream_odds
    made = encode_learned_day(encoder, labelled, i, config.tasks, lists, every, stream_odds=odds)
    for task in _hidden(periods, i):
        made.labels[task].fill(np.nan)
    return made


def _lists(days: Days, periods: Mapping[str, tuple[int, int]], config: RunConfig) -> ListRows | None:
    """Say what a list is, where a head learns the order inside it."""
    return learned_lists(days, {t: range(first, last + 1) for t, (first, last) in periods.items()}, config)


def _hidden(periods: Mapping[str, tuple[int, int]], i: int) -> list[str]:
    """Name the tasks that are not trained on day i."""
    return [task for task, (first, last) in periods.items() if not first <= i <= last]


def make_batcher(
    encoder: Encoder, items: pl.DataFrame, config: RunConfig, tasks: Sequence[TaskSpec]
) -> Batcher:
    """Make what cuts encoded rows into training batches."""
    return Batcher(encoder, text_by_number(encoder, items), batch_settings(config, tasks))


def fit_settings(
    config: RunConfig, steps: int, *, warm: bool, choice: HostChoice | None = None
) -> FitSettings:
    """Give the trainer's settings. Args: warm: the weights are those of another night."""
    training = config.training
    retrieval = config.retrieval_task if config.retrieval.weight else None
    return FitSettings(
        learning_rate=training.learning_rate * (training.warm_scale if warm else 1.0),
        constant=warm,
        weight_decay=training.weight_decay,
        retrieval_task=retrieval.name if retrieval else None,
        temperature=config.retrieval.temperature,
        next_item_weight=config.model.history.weight,
        total_steps=steps,
        warmup_steps=min(100, steps // 10),
        bf16=(choice or HostChoice.unmeasured(training)).precision == "bf16",
        read_every=read_every(resolve_device(training.device)),
    )


def fit_state(
    days: Days,
    chosen: Sequence[int],
    config: RunConfig,
    previous: Previous | None,
    user_key: UserKey | None = None,
) -> EncoderState:
    """Fit the encoder on the last chosen day; what `previous` has fitted stays, unless it is defined anew.

    Args: user_key: what users' ids are hashed with; default: as in `previous`, in a cold start not at all.
    """
    old = None if previous is None else previous.state
    if user_key is not None and (chosen or old is not None):
        old = with_hashed_users(old, config, user_key)
    if not chosen:
        assert old is not None, "a cold start without a training period is refused by plan_night"
        return old
    contexts = [days[i] for i in chosen[-MAX_CONTEXT_PERIODS:]]
    frames = FitFrames.read(days[chosen[-1]], contexts, config, days.before(chosen[-1]))
    return fit_encoder(config, frames, old, config.training.seed)


def retrieval_popularity(
    days: Days, chosen: Sequence[int], config: RunConfig, state: EncoderState
) -> np.ndarray:
    """Give each item number's share of the retrieval task's feedback over the chosen days."""
    task = config.retrieval_task
    assert task is not None
    vocabulary = state.vocabularies["item_id"]
    tiles = pl.concat([days[i].table("item_tile").select("item_id", f"{task.name}_count") for i in chosen])
    return positive_share(
        vocabulary.encode(tiles["item_id"]), tiles[f"{task.name}_count"].to_numpy(), vocabulary.size
    )
