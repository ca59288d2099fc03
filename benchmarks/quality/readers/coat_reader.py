"""Coat shopping: self-selected stars, published propensities, user and item features; random test if there.

The published random-item test matrix is often missing from copies of the set; without it `test` is None.
Source: Schnabel et al., ICML 2016.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.quality.readers.published_files import found, published, unpacked
from recsys.errors import DataError

STARS = (1.0, 5.0)
NUM_FOLDS = 5
VALIDATION_SHARE = 0.1
"""Of the ratings outside a fold, when the fold is what is held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coat:
    """Matrices [U, I] of users and coats, and what is known of both."""

    stars: np.ndarray
    """float32 [U, I]: ratings of coats the user chose; NaN where there is none."""
    propensity: np.ndarray
    """float64 [U, I] in (0, 1): published probability that the pair is rated."""
    user_columns: np.ndarray
    """int64 [U, C]: one column per group of the features' map, such as age."""
    item_columns: np.ndarray
    test: np.ndarray | None
    """float32 [U, I]: ratings of coats drawn at random, NaN where there is none; None without the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The pairs of one run, as masks [U, I] over disjoint ratings."""

    train: np.ndarray
    validation: np.ndarray
    held_out: np.ndarray
    """Empty where the random test is scored: then the fold is for validation."""


def read_coat(folder: Path) -> Coat:
    """Read the published matrices, packed or not.

    Raises: DataError when a file but the random test is missing, or shapes, stars or propensities are wrong.
    """
    stars = _stars(folder, "train.ascii")
    propensity = _matrix(folder, "propensities.ascii")
    if propensity.shape != stars.shape:
        raise DataError(
            f"{folder}: propensities are {propensity.shape}, train is {stars.shape}; must be equal"
        )
    # Of a pair that is rated for sure no logit can be taken, and none is published.
    if not ((propensity > 0) & (propensity < 1)).all():
        raise DataError(f"{folder}: propensities.ascii has values outside (0, 1); take the published file")
    test = _stars(folder, "test.ascii") if found(folder / "test.ascii") else None
    return Coat(
        stars=stars,
        propensity=propensity,
        user_columns=_groups(folder, "user", stars.shape[0]),
        item_columns=_groups(folder, "item", stars.shape[1]),
        test=test,
    )


def split_coat(data: Coat, fold: int) -> Part:
    """Part the ratings for one run: a fifth of every user's is the fold, drawn once for all seeds.

    Without the random test the fold is held out and a tenth of the rest validates; with it the fold does.
    """
    rated = ~np.isnan(data.stars)
    rng = np.random.default_rng(0)
    # Every user's ratings are dealt out in turn: a fold has as many of each.
    order = np.argsort(np.where(rated, rng.random(rated.shape), 2.0), axis=1)
    place = np.argsort(order, axis=1)
    mine = rated & ((place + np.arange(len(rated))[:, None]) % NUM_FOLDS == fold)
    if data.test is not None:
        return Part(train=rated & ~mine, validation=mine, held_out=np.zeros_like(mine))
    validation = rated & ~mine & (rng.random(rated.shape) < VALIDATION_SHARE)
    return Part(train=rated & ~mine & ~validation, validation=validation, held_out=mine)


def _groups(folder: Path, side: str, num: int) -> np.ndarray:
    """Make one column of codes [N, C] of each group of 0/1 columns ("age:20-30" is of group "age")."""
    flags = _matrix(folder, f"{side}_features.ascii")
    lines = published(folder / f"{side}_features_map.txt").read_text().splitlines()
    names = [line.split(":")[0].strip() for line in lines if line.strip()]
    if flags.shape != (num, len(names)):
        raise DataError(
            f"{folder}: {side}_features.ascii is {flags.shape}; "
            f"expected {num} rows and the map's {len(names)} columns"
        )
    columns = []
    for group in dict.fromkeys(names):
        mine = flags[:, [name == group for name in names]] > 0
        # 0 for a row without any of the group's flags, which no published row is.
        columns.append(np.where(mine.any(axis=1), mine.argmax(axis=1) + 1, 0))
    return np.stack(columns, axis=1)


def _stars(folder: Path, name: str) -> np.ndarray:
    values = _matrix(folder, name)
    if not np.isin(values, np.arange(STARS[1] + 1)).all():
        raise DataError(
            f"{folder}: {name} has values other than 0 (not rated) and 1 to 5; take the published file"
        )
    return np.where(values > 0, values, np.nan).astype(np.float32)


def _matrix(folder: Path, name: str) -> np.ndarray:
    text = unpacked(folder / name)
    try:
        return np.loadtxt(text.decode("ascii").splitlines(), ndmin=2)
    except ValueError as error:
        raise DataError(f"{folder / name} is no matrix of numbers: {error}") from error
