"""Candidates of several sources: each row once, where its first source put it, with all of its sources."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.retrieval import Candidates, _each_once

PARTS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=8), min_size=2, max_size=5)


@given(parts=PARTS)
def test_rows_of_several_sources_are_those_of_a_dict(parts) -> None:
    wanted: dict[int, int] = {}
    for bit, rows in enumerate(parts):
        for row in rows:
            wanted[row] = wanted.get(row, 0) | 1 << bit
    found = _each_once(
        [
            Candidates(rows=np.array(rows), sources=np.full(len(rows), 1 << bit))
            for bit, rows in enumerate(parts)
        ]
    )
    assert dict(zip(found.rows.tolist(), found.sources.tolist(), strict=True)) == wanted
    assert found.rows.tolist() == list(wanted)
