"""Trained weights in a folder, and back: what lies between training and a bundle."""

from pathlib import Path

from safetensors.numpy import load_file, save_file

from recsys.config import RunConfig
from recsys.encoding import EncoderState
from training.build_model import build_model
from training.train import TrainedModel
from training.trainer.train_log import TrainLog
from training.trainer.weights import load_canonical
from training.warm_start import Previous

WEIGHTS = "weights.safetensors"


def save_trained(trained: TrainedModel, folder: Path) -> None:
    """Write weights, tables with optimiser state, and what the encoder has fitted into an existing folder."""
    save_file(trained.weights(), folder / WEIGHTS)
    trained.state.save(folder)


def load_previous(folder: Path, config: RunConfig) -> Previous:
    """Read what `save_trained` wrote as weights to go on from, with the same config."""
    trained = load_trained(folder, config)
    return Previous.same(trained.weights(), trained.ranker, trained.state, config)


def load_trained(folder: Path, config: RunConfig) -> TrainedModel:
    """Read what `save_trained` wrote; the log of the training stays empty.

    Args: config: of the training: its features and its model are the shapes of the weights.
    """
    state = EncoderState.load(folder)
    ranker, tables = build_model(config, state, loaded=True)
    load_canonical(ranker, tables, load_file(folder / WEIGHTS))
    return TrainedModel(ranker=ranker, tables=tables, state=state, log=TrainLog())
