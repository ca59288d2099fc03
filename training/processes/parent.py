"""A fit of several processes, as its parent sees it."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from recsys.model.embeddings import LocalTables
from recsys.model.ranker import Ranker
from recsys.scratch import scratch_folder
from training.curves.recorder import Recorder
from training.data import EncodedDays
from training.fit_inputs import FitInputs
from training.processes.job import STEPS, FitJob
from training.processes.launch import launch
from training.progress import say
from training.trainer.saver import Saver
from training.trainer.train_log import TrainLog
from training.trainer.watcher import Watcher
from training.trainer.weights import canonical, load_canonical

LOOK_S = 0.2


def fit_in_processes(
    inputs: FitInputs,
    ranker: Ranker,
    tables: LocalTables,
    processes: int,
    watchers: Sequence[Watcher] = (),
    diverged: Path | None = None,
    *,
    sharded: bool = False,
) -> TrainLog:
    """Train the weights given, by several processes of one thread each, or each with a GPU.

    Weights go there and back through files beside the encoded days: tables may be larger than the system's
    folder for temporary files.

    Args: inputs: reads days from files. watchers: see losses and rows; steps are made elsewhere. A Saver's
    checkpoints are saved and gone on from by the ranks; they record a Recorder's curves. diverged: where they
    save a step whose loss is not finite or explodes. sharded: the ranks share the tables; else each has a
    copy.
    Raises: RankError, DivergedError; the weights are then as they were.
    """
    assert isinstance(inputs.read_day, EncodedDays), "several processes read files"
    with scratch_folder(inputs.read_day.folder, "fit") as folder:
        job = FitJob(folder)
        saver = next((w for w in watchers if isinstance(w, Saver)), None)
        curves = next((w.curves for w in watchers if isinstance(w, Recorder)), None)
        job.write(inputs, canonical(ranker, tables), saver, diverged, curves, sharded=sharded)
        with told(job.folder / STEPS, watchers):
            launch(["-m", "training.processes.rank", str(folder)], processes)
        weights, log = job.trained()
    load_canonical(ranker, tables, weights)
    return log


@contextmanager
def told(file: Path, watchers: Sequence[Watcher]) -> Iterator[None]:
    """Tell watchers what rank 0 writes of its steps, in a thread."""
    ended, errors = threading.Event(), list[Exception]()

    def follow() -> None:
        place, last = 0, False
        try:
            while not last:
                last = ended.wait(LOOK_S)
                place = _tell(file, place, watchers)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if errors:  # of a watcher: it ends the fit, as it does in one process
        raise errors[0]


def _tell(file: Path, place: int, watchers: Sequence[Watcher]) -> int:
    """Pass whole lines on; give the place after the last one."""
    if not file.is_file():
        return place
    with file.open("rb") as stream:
        stream.seek(place)
        found = stream.read()
    whole = found[: found.rfind(b"\n") + 1]
    for line in whole.splitlines():
        said = json.loads(line)
        if "said" in said:
            say(said["said"])
            continue
        for watcher in watchers:
            if "losses" in said:
                watcher.on_losses(said["step"], said["losses"])
            else:
                watcher.on_rows(said["rows"], said["of_step"])
    return place + len(whole)
