"""A fit of several processes, as its parent sees it."""

import json
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from recsys.model.embeddings import LocalTables
from recsys.model.ranker import Ranker
from training.fit_inputs import FitInputs
from training.processes.job import STEPS, FitJob
from training.processes.launch import launch
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
) -> TrainLog:
    """Train the weights given, by several processes of one thread each.

    Args: watchers: see losses and rows; steps are made elsewhere. A Saver's checkpoints are saved and
    gone on from by the ranks. `inputs` reads days from files.
    Raises: RankError, DivergedError; the weights are then as they were.
    """
    with tempfile.TemporaryDirectory(prefix="recsys-fit-") as folder:
        job = FitJob(Path(folder))
        saver = next((w for w in watchers if isinstance(w, Saver)), None)
        job.write(inputs, canonical(ranker, tables), saver)
        with told(job.folder / STEPS, watchers):
            launch(["-m", "training.processes.rank", folder], processes)
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
        for watcher in watchers:
            watcher.on_losses(said["step"], said["losses"])
            watcher.on_rows(said["rows"], said["of_step"])
    return place + len(whole)
