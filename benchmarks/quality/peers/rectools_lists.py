"""Train one of RecTools' sequence models, and write the lists of the tested users.

It runs in the peer's environment, which has none of our packages: it imports nothing of ours. How many epochs
is chosen as the package's documentation does: the loss of each user's last item, which is held back, until it
is no better for some epochs. Then the model is trained anew, with that item, for as many.

In FILE.npz: `users` and `items` [E], events oldest first, the validation items last; `held` [E] bool, where
these are; `tested` [V] users. Out: `lists` [V, K] item numbers, -1 behind the last; `epochs`, `cpu_s`,
`peak_mb`.
"""

import argparse
import resource
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from pytorch_lightning.callbacks import EarlyStopping
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet
from rectools.models.nn.transformers.ligr import LiGRLayers

MODELS: dict[str, dict[str, Any]] = {
    "rectools_sasrec": {"loss": "softmax"},
    "rectools_esasrec": {
        "loss": "sampled_softmax",
        "n_negatives": 256,
        "transformer_layers_type": LiGRLayers,
        "use_key_padding_mask": True,
    },
}
"""What differs from the package's defaults; eSASRec is SASRec with LiGR layers and sampled softmax."""
MOST_EVENTS, RANKED = 50, 1000


class Losses(Callback):  # type: ignore[misc]
    """Keeps the validation loss of every epoch."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_validation_epoch_end(self, trainer: Trainer, _: Any) -> None:
        if not trainer.sanity_checking:
            self.found.append(float(trainer.callback_metrics["val_loss"]))


def build(name: str, epochs: int, callbacks: list[Callback], held: np.ndarray | None) -> SASRecModel:
    """Make a model that trains for at most so many epochs."""

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=callbacks,
        )

    mask = None if held is None else lambda interactions: held[interactions[Columns.Weight].to_numpy(int) - 1]
    return SASRecModel(
        session_max_len=MOST_EVENTS,
        item_net_block_types=(IdEmbeddingsItemNet,),
        get_trainer_func=trainer,
        get_val_mask_func=mask,
        epochs=epochs,
        **MODELS[name],
    )


def main() -> None:
    """Train, rank, and write."""
    parser = argparse.ArgumentParser()
    for option in ("--model", "--data", "--out"):
        parser.add_argument(option, required=True)
    for option, value in (("--seed", 0), ("--epochs", 100), ("--patience", 5), ("--threads", 1)):
        parser.add_argument(option, type=int, default=value)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    given = np.load(asked.data)
    size = given["users"].size
    events = pd.DataFrame(
        {
            Columns.User: given["users"],
            Columns.Item: given["items"],
            # The number of the event, so that the mask finds it again: these models read no weights.
            Columns.Weight: np.arange(1.0, size + 1),
            Columns.Datetime: pd.Timestamp(0) + pd.to_timedelta(np.arange(size), unit="s"),
        }
    )
    data, began = Dataset.construct(events), time.process_time()
    seed_everything(asked.seed)
    stop = EarlyStopping("val_loss", patience=asked.patience)
    first = build(asked.model, asked.epochs, [Losses(), stop], given["held"]).fit(data)
    # The package trains with a copy of the trainer and of its callbacks.
    losses = next(c.found for c in first.fit_trainer.callbacks if isinstance(c, Losses))
    epochs = 1 + int(np.argmin(losses))
    seed_everything(asked.seed)
    model = build(asked.model, epochs, [], None).fit(data)
    tested = given["tested"]
    found = model.recommend(tested, data, k=RANKED, filter_viewed=True, on_unsupported_targets="ignore")
    lists = np.full((tested.size, RANKED), -1, np.int64)
    row_of = {user: row for row, user in enumerate(tested.tolist())}
    rows = found[Columns.User].map(row_of).to_numpy()
    lists[rows, found[Columns.Rank].to_numpy() - 1] = found[Columns.Item].to_numpy()
    spent, peak = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    np.savez(asked.out, lists=lists, epochs=epochs, cpu_s=spent, peak_mb=peak)


if __name__ == "__main__":
    main()
