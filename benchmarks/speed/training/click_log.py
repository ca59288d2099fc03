"""A log of clicks and purchases that every system reads from the same arrays.

Ten columns of ids and four numbers a row. Every id has a planted 8-d factor; users' and items' columns are
attributes, functions of the user or the item, so that a model can learn from rare ones too. Users and items
are drawn by Zipf's law. A purchase needs a click. What the labels were drawn from is written beside them, so
that a bench can say what the best possible model would reach.

Shape letters: N rows, C columns, F numbers, K tasks, Z planted factors.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

COLUMN_SIZES: Final = (100_000, 100_000, 10_000, 10_000, 1_000, 1_000, 1_000, 100, 100, 20)
"""Distinct ids: user, item, city, seller, category, brand, device, age band, hour, surface."""
NUM_NUMBERS: Final = 4
TASKS: Final = ("click", "purchase")
RATES: Final = (0.095, 0.025)
"""Share of all rows."""
PARTS: Final = ("train", "test")
CHUNK: Final = 1 << 18
_USER, _ITEM, _CITY, _SELLER, _CATEGORY, _BRAND, _DEVICE, _AGE, _HOUR, _SURFACE = range(10)
_OF_USER: Final = (_CITY, _AGE)
_OF_ITEM: Final = (_SELLER, _CATEGORY, _BRAND)
_FACTORS: Final = 8
_SPREAD: Final = (1.5, 1.3)
"""Standard deviation of what users and items share, on the scale of logits, per task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Some rows of the log."""

    ids_NC: np.ndarray
    """int32, each column from 0."""
    numbers_NF: np.ndarray
    """float32."""
    labels_NK: np.ndarray
    """float32, 0 or 1."""


_WIDTHS: Final = {
    "ids": (np.int32, len(COLUMN_SIZES)),
    "numbers": (np.float32, NUM_NUMBERS),
    "labels": (np.float32, len(TASKS)),
    "truth": (np.float32, len(TASKS)),
}


def read_chunk(folder: Path, part: str, begin: int, end: int) -> Rows:
    """Read rows [begin, end) of a part into memory."""
    ids_NC, numbers_NF, labels_NK = (
        read_array(folder, part, name, begin, end) for name in ("ids", "numbers", "labels")
    )
    return Rows(ids_NC=ids_NC, numbers_NF=numbers_NF, labels_NK=labels_NK)


def read_array(folder: Path, part: str, name: str, begin: int = 0, end: int | None = None) -> np.ndarray:
    """Read rows of one array into memory; `truth` is what the labels were drawn from."""
    return np.array(np.load(folder / f"{part}_{name}.npy", mmap_mode="r")[begin:end])


def write_click_log(folder: Path, train_rows: int, test_rows: int, seed: int) -> None:
    """Write both parts, chunk by chunk; equal arguments give equal bytes."""
    world = _World(np.random.default_rng(seed))
    folder.mkdir(parents=True, exist_ok=True)
    for place, (part, rows) in enumerate(zip(PARTS, (train_rows, test_rows), strict=True)):
        files = {
            name: np.lib.format.open_memmap(
                folder / f"{part}_{name}.npy", mode="w+", dtype=dtype, shape=(rows, width)
            )
            for name, (dtype, width) in _WIDTHS.items()
        }
        for begin, made in world.chunks(rows, np.random.default_rng([seed, place])):
            for name, values in made.items():
                files[name][begin : begin + len(values)] = values


class _World:
    """The planted truth: attributes, factors and main effects of every id, per task."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.attributes = {c: rng.integers(COLUMN_SIZES[c], size=COLUMN_SIZES[_USER]) for c in _OF_USER} | {
            c: rng.integers(COLUMN_SIZES[c], size=COLUMN_SIZES[_ITEM]) for c in _OF_ITEM
        }
        self.orders = {c: rng.permutation(COLUMN_SIZES[c]) for c in (_USER, _ITEM)}
        self.chances = {_USER: _zipf(COLUMN_SIZES[_USER], 0.6), _ITEM: _zipf(COLUMN_SIZES[_ITEM], 0.9)}
        shape = len(TASKS), _FACTORS
        self.factors = [rng.standard_normal((shape[0], n, shape[1])).astype(np.float32) for n in COLUMN_SIZES]
        self.effects = [0.25 * rng.standard_normal((len(TASKS), n)).astype(np.float32) for n in COLUMN_SIZES]
        self.weights = 0.2 * rng.standard_normal((len(TASKS), NUM_NUMBERS)).astype(np.float32)
        self.bias = np.zeros(len(TASKS))
        self.bias = self._fitted_bias(rng)

    def chunks(self, rows: int, rng: np.random.Generator) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Give each chunk's first place and its arrays."""
        for begin in range(0, rows, CHUNK):
            num = min(CHUNK, rows - begin)
            ids_NC, numbers_NF = self._inputs(num, rng)
            click_N, after_N = _sigmoid(self._logits(ids_NC, numbers_NF) + self.bias[:, None])
            truth_NK = np.stack([click_N, click_N * after_N], axis=1)
            click = rng.random(num) < click_N
            bought = click & (rng.random(num) < after_N)
            yield (
                begin,
                {
                    "ids": ids_NC,
                    "numbers": numbers_NF,
                    "labels": np.stack([click, bought], axis=1),
                    "truth": truth_NK,
                },
            )

    def _inputs(self, num: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        ids_NC = np.empty((num, len(COLUMN_SIZES)), np.int32)
        for column, chances in self.chances.items():
            ids_NC[:, column] = self.orders[column][np.searchsorted(chances, rng.random(num))]
        for column in (_DEVICE, _HOUR, _SURFACE):
            ids_NC[:, column] = rng.integers(COLUMN_SIZES[column], size=num)
        for entity, columns in ((_USER, _OF_USER), (_ITEM, _OF_ITEM)):
            for column in columns:
                ids_NC[:, column] = self.attributes[column][ids_NC[:, entity]]
        return ids_NC, rng.standard_normal((num, NUM_NUMBERS), dtype=np.float32)

    def _logits(self, ids_NC: np.ndarray, numbers_NF: np.ndarray) -> np.ndarray:
        """Give what ids and numbers add to the logits, [K, N]: of a click, and of a purchase after one."""
        found = []
        for task, spread in enumerate(_SPREAD):
            user_NZ = sum(self.factors[c][task, ids_NC[:, c]] for c in (_USER, *_OF_USER))
            item_NZ = sum(self.factors[c][task, ids_NC[:, c]] for c in (_ITEM, *_OF_ITEM))
            size = np.sqrt(_FACTORS * (1 + len(_OF_USER)) * (1 + len(_OF_ITEM)))
            shared_N = spread / size * np.einsum("nz,nz->n", user_NZ, item_NZ)
            alone_N = sum(self.effects[c][task, ids_NC[:, c]] for c in range(len(COLUMN_SIZES)))
            found.append(shared_N + alone_N + numbers_NF @ self.weights[task])
        return np.stack(found)

    def _fitted_bias(self, rng: np.random.Generator) -> np.ndarray:
        """Choose the constants that give the wanted rates, by bisection on a sample."""
        logits_KN = self._logits(*self._inputs(CHUNK // 2, rng))
        click = _bisect(lambda b: float(_sigmoid(logits_KN[0] + b).mean()) - RATES[0])
        chance_N = _sigmoid(logits_KN[0] + click)
        after = _bisect(lambda b: float((chance_N * _sigmoid(logits_KN[1] + b)).mean()) - RATES[1])
        return np.array([click, after])


def _zipf(size: int, exponent: float) -> np.ndarray:
    """Give the cumulative chances of ranks 1, 2, …, each by rank ** -exponent."""
    summed = np.cumsum(np.arange(1, size + 1, dtype=np.float64) ** -exponent)
    chances: np.ndarray = summed / summed[-1]
    return chances


def _sigmoid(x: np.ndarray) -> np.ndarray:
    chances: np.ndarray = 1 / (1 + np.exp(-x))
    return chances


def _bisect(rises: Callable[[float], float]) -> float:
    """Find where a rising function is 0, between -20 and 20."""
    low, high = -20.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if rises(middle) < 0 else (low, middle)
    return (low + high) / 2
