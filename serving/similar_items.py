"""The order of items similar to a seed: by cosine similarity, in steps; within a step by the user's taste."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def similarity_scores(cosines: npt.NDArray[np.float32], taste: Floats | None, step: float) -> Floats:
    """Score items [N] similar to a seed; higher is better.

    An item's cosine is rounded down to a whole step; the share of items that the user likes less fills the
    step, so taste never moves an item past one that is a step more similar.
    Args: cosines: [N], with the seed; taste: [N], the fused scores, None when nothing was predicted;
    step: 0 leaves taste out.
    """
    exact = cosines.astype(np.float64)
    if taste is None or step == 0.0:
        return exact
    liked_less = np.searchsorted(np.sort(taste), taste, side="left") / len(taste)
    scores: Floats = step * (np.floor(exact / step) + liked_less)
    return scores
