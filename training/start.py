"""Initial rows of new ids: the row of the bucket that they shared, or, for items, one made from content.

Content: a ridge regression from text vectors to the trained rows of older items, fitted anew every night, its
penalty chosen by leave-one-out error. It maps to what the model's own text projection leaves to the id's row.
Source: content-to-embedding maps for cold items as in van den Oord et al., NIPS 2013.
"""

import numpy as np
import torch
from torch import Tensor

from recsys.encoding import EncoderState
from recsys.model.embeddings import LocalTables

ITEMS = "item_id"
PENALTIES = tuple(10.0**k for k in range(-2, 5))
MIN_ITEMS = 50
"""With fewer trained items than this the map would be noise: new rows start at zero, described by text."""


def start_new_rows(
    tables: LocalTables, state: EncoderState, old: EncoderState, text_VT: Tensor | None = None
) -> None:
    """Fill the rows of ids that got their own number since `old`; numbers given earlier keep their rows.

    Args: text_VT: text vectors by item number; rows of zeros are items without text.
    """
    for name, vocabulary in state.vocabularies.items():
        known = old.vocabularies.get(name)
        if known is None or name not in tables.weight or vocabulary.size == known.size:
            continue
        if vocabulary.hash_buckets:
            # The bucket's row is a better start than zero; with the accumulator at 0 first steps are large.
            buckets = [vocabulary.bucket_of(n) for n in range(known.size, vocabulary.size)]
            tables.weight[name][known.size : vocabulary.size] = tables.weight[name][buckets]
        elif name == ITEMS and text_VT is not None:
            rows = content_rows(tables.weight[name], tables.state[name], text_VT, known.size, vocabulary.size)
            if rows is not None:
                tables.weight[name][known.size : vocabulary.size] = rows


def content_rows(weight_VD: Tensor, state_V: Tensor, text_VT: Tensor, start: int, stop: int) -> Tensor | None:
    """Predict the rows [start, stop) from text; zeros for items without text.

    Args: state_V: the optimiser's accumulators; 0 = this row was never trained.
    Returns: None when too few older items have both a trained row and a text.
    """
    has_text = text_VT.abs().sum(dim=1) > 0
    known = ((state_V[:start] > 0) & has_text[:start]).nonzero().squeeze(1)
    if known.numel() < MIN_ITEMS:
        return None
    from sklearn.linear_model import RidgeCV  # 1.5 s, which ranks need not wait for

    ridge = RidgeCV(alphas=PENALTIES).fit(text_VT[known].numpy(), weight_VD[known].numpy())
    predicted = torch.from_numpy(np.asarray(ridge.predict(text_VT[start:stop].numpy()), np.float32))
    return torch.where(has_text[start:stop, None], predicted, 0.0)
