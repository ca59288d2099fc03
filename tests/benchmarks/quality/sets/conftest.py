"""Small sets in the published layouts, for more than one test file."""

import gzip

import numpy as np
import pytest

USERS, ITEMS = 30, 40


@pytest.fixture
def write_100k():
    """Give what writes ml-100k into a folder."""
    return _write_100k


def _write_100k(folder, *, poison=False):
    """Write RecBole's files: users come one after the other; stars are biases; halves like their own half."""
    rng = np.random.default_rng(4)
    folder.mkdir()
    taste, worth = rng.normal(0, 0.7, USERS), rng.normal(0, 0.9, ITEMS)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(USERS):
        likely = np.where(np.arange(ITEMS) % 2 == user % 2, 5.0, 1.0)
        for n, item in enumerate(rng.choice(ITEMS, 16, replace=False, p=likely / likely.sum())):
            stars = int(np.clip(round(3.3 + taste[user] + worth[item]), 1, 5))
            # The last users' ratings are the test; user 0 comes back for the last four.
            when = 10_000 + n if user == 0 and n >= 12 else 100 * user + n
            late = when >= 2_404
            lines.append(f"{user + 1}\t{item + 1}\t{6 - stars if poison and late else stars}\t{when}")
    _write(folder / "ml-100k.inter.gz", lines)
    _write(
        folder / "ml-100k.user.gz",
        ["user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"]
        + [f"{u + 1}\t{20 + u}\t{'FM'[u % 2]}\tother\t85711" for u in range(USERS)],
    )
    _write(
        folder / "ml-100k.item.gz",
        ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
        + [f"{i + 1}\tFilm\t{1950 + i}\t{'Drama' if i % 2 else 'Comedy Crime'}" for i in range(ITEMS)],
    )
    return folder


def _write(path, lines):
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
