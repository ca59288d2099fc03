"""Trained weights in a folder, and back: what lies between training and a bundle."""

from pathlib import Path

import torch
from safetensors.numpy import load_file, save_file

from recsys.config import RunConfig
from recsys.encoding import EncoderState
from training.train import TrainedModel, build_model
from training.trainer.train_log import TrainLog
from training.warm_start import Previous

WEIGHTS = "weights.safetensors"


def save_trained(trained: TrainedModel, folder: Path) -> None:
    """Write weights, tables with optimiser state, and what the encoder has fitted into an existing folder."""
    save_file(trained.weights(), folder / WEIGHTS)
    trained.state.save(folder)


def load_previous(folder: Path, config: RunConfig) -> Previous:
    """Read what `save_trained` wrote as weights to go on from, with the same config."""
    trained = load_trained(folder, config)
    return Previous.same(trained.weights(), trained.ranker, trained.state, config.model)


def load_trained(folder: Path, config: RunConfig) -> TrainedModel:
    """Read what `save_trained` wrote; the log of the training stays empty.

    Args: config: of the training: its features and its model are the shapes of the weights.
    """
    state = EncoderState.load(folder)
    weights = {name: torch.from_numpy(array) for name, array in load_file(folder / WEIGHTS).items()}
    ranker, tables = build_model(config, state)
    ranker.load_state_dict({name: weights[f"ranker.{name}"] for name in ranker.state_dict()})
    tables.load({k.removeprefix("table."): v for k, v in weights.items() if k.startswith("table.")})
    return TrainedModel(ranker=ranker, tables=tables, state=state, log=TrainLog())
