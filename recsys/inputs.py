"""Encoded inputs as numpy arrays: what `features` hands to a scorer; no torch here."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class UserInputs:
    """One user's encoded inputs at a request, as numpy: what the online read hands to the scorer."""

    ids: np.ndarray
    """int64 [C], in the order of the user's categorical features."""
    numbers: np.ndarray
    """float32 [F]."""
    history_items: np.ndarray
    """int64 [L] item numbers, newest first."""
    history_kinds: np.ndarray
    history_ages: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextInputs:
    """One request's encoded context: ids int64 [C], numbers float32 [F]."""

    ids: np.ndarray
    numbers: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemInputs:
    """Encoded catalogue: ids int64 [I, C], numbers float32 [I, F], text float32 [I, T], in item-row order."""

    ids: np.ndarray
    numbers: np.ndarray
    text: np.ndarray
