"""Which tables a device has room for."""

import torch

from recsys.model.embeddings import TableSpec
from training.table_placement import tables_for_host, too_large

SMALL, LARGE, LARGEST = (TableSpec(name=str(size), size=size, dim=31) for size in (1 << 20, 1 << 22, 1 << 24))
MIB = 128
"""Bytes of 2**20 rows: 31 weights and the optimiser's state, 4 bytes each."""


def test_the_smallest_are_taken_first():
    tables = [LARGEST, SMALL, LARGE]
    assert too_large(tables, 21 * MIB * 2**20) == []
    assert too_large(tables, 20 * MIB * 2**20) == [LARGEST]
    assert too_large(tables, 5 * MIB * 2**20) == [LARGEST]
    assert too_large(tables, 4 * MIB * 2**20) == [LARGE, LARGEST]
    assert too_large(tables, 0) == [SMALL, LARGE, LARGEST]


def test_a_processor_has_room_for_all():
    assert tables_for_host([LARGEST], torch.device("cpu")) == frozenset()


def test_what_stays_in_host_memory_is_said(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**30))
    assert tables_for_host([LARGEST, SMALL], torch.device("cuda", 0)) == {LARGEST.name}
    said = " ".join(capsys.readouterr().err.split())
    assert f"table {LARGEST.name} (2.0 GiB) stays in host memory: 70% of the 1.0 GiB free on cuda:0" in said
