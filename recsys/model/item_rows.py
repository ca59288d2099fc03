"""Items as a scorer reads them: one packed row each, so that a request gathers its candidates once.

A row is the item's input, which begins with its id's row and text, and then its unit vector. Everything else
that a candidate needs follows from these in small products. The arrays can be written, and mapped by several
processes.

Legend: I items, W columns of a row, V item numbers, D an item id's row.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recsys.batch import BagIndex
from recsys.inputs import ItemInputs
from recsys.model.group_codes import GroupCodes
from recsys.model.ranker import ItemSide, Ranker, pool_bag

Tables = Mapping[str, Tensor]
BLOCK = 65_536
"""Items that are encoded at a time."""


@dataclass(frozen=True, slots=True)
class ItemRows:
    """A bundle's items, encoded."""

    packed_IW: Tensor
    num_input: int
    """Columns before the unit vector."""
    own_VD: np.ndarray
    """By item number: the id's row and the text, as histories read them; in host memory."""
    groups: tuple[GroupCodes, ...]
    """Per cross feature the items' codes."""

    @classmethod
    def encode(cls, ranker: Ranker, tables: Tables, items: ItemInputs, reserved: int) -> "ItemRows":
        """Encode a catalogue, on the ranker's device.

        Args: reserved: item numbers below it are no single item's.
        """
        packed_IW = pack(ranker, tables, items)
        own_VD = tables["item_id"].numpy()
        if ranker.project_text is not None:
            own_VD = own_VD.copy()
            own = np.flatnonzero(items.ids[:, 0] >= reserved)
            own_ID = packed_IW[:, : own_VD.shape[1]].cpu().numpy()
            own_VD[items.ids[own, 0]] = own_ID[own]
        return cls(
            packed_IW, ranker.num_item_in, own_VD, tuple(GroupCodes.of(values) for values in items.groups)
        )

    def write(self, folder: Path) -> None:
        """Write all arrays into a folder, which is made if it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "packed.npy", self.packed_IW.cpu().numpy())
        np.save(folder / "own.npy", self.own_VD)
        for place, group in enumerate(self.groups):
            np.save(folder / f"group-{place}.npy", group.codes)
        said = {"num_input": self.num_input, "groups": [list(group.names) for group in self.groups]}
        (folder / "items.json").write_text(json.dumps(said))

    @classmethod
    def open(cls, folder: Path) -> "ItemRows":
        """Map what `write` wrote; the caller has made sure that nobody else could change it.

        Raises: OSError when a file is not there.
        """
        said = json.loads((folder / "items.json").read_text())
        groups = (
            GroupCodes.with_names(names, _mapped(folder / f"group-{place}.npy"))
            for place, names in enumerate(said["groups"])
        )
        packed = torch.from_numpy(_mapped(folder / "packed.npy"))
        return cls(packed, said["num_input"], _mapped(folder / "own.npy"), tuple(groups))

    def to(self, device: torch.device) -> "ItemRows":
        """Return the same rows with what is gathered per request on a device."""
        return replace(self, packed_IW=self.packed_IW.to(device))

    @property
    def vectors(self) -> Tensor:
        """View the unit vectors [I, D]."""
        return self.packed_IW[:, self.num_input :]


def pack(ranker: Ranker, tables: Tables, items: ItemInputs) -> Tensor:
    """Encode items into packed rows [I, W] on the ranker's device."""
    num = items.ids.shape[0]
    found = torch.empty(
        num, ranker.num_item_in + ranker.item_factor.out_features, device=ranker.item_factor.weight.device
    )
    for start in range(0, num, BLOCK):
        rows = np.arange(start, min(start + BLOCK, num))
        side = encode_item_side(ranker, tables, _taken(items, rows))
        torch.cat([side.input_BI, side.embedding_BD], dim=1, out=found[start : start + BLOCK])
    return found


def unpack(ranker: Ranker, packed_NW: Tensor) -> ItemSide:
    """Give the item sides that packed rows are made of."""
    input_NI, embedding_ND = packed_NW.tensor_split([ranker.num_item_in], dim=1)
    own_ND = input_NI[:, : ranker.item_factor.in_features]
    return ItemSide(input_NI, embedding_ND, ranker.history.query(own_ND), own_ND)


@torch.inference_mode()
def encode_item_side(ranker: Ranker, tables: Tables, items: ItemInputs) -> ItemSide:
    """Look up encoded items and run the item tower over all of them, on the ranker's device.

    Args: tables: each on the ranker's device or in host memory.
    """
    device = next(ranker.parameters()).device
    ids = torch.from_numpy(items.ids)
    rows = []
    for i, (_, vocabulary, _) in enumerate(ranker.inputs.item_tables):
        table = tables[vocabulary]
        rows.append(table[ids[:, i].to(table.device)].to(device))
    for (_, vocabulary, _), bag in zip(ranker.inputs.item_bags, items.bags, strict=True):
        table = tables[vocabulary]
        values, starts = torch.from_numpy(bag.values), torch.from_numpy(bag.offsets[:-1])
        lists = BagIndex(values.to(table.device), starts.to(table.device))
        rows.append(pool_bag(table, lists).to(device))
    return ranker.item_side(
        rows, torch.from_numpy(items.numbers).to(device), torch.from_numpy(items.text).to(device)
    )


def _taken(items: ItemInputs, rows: np.ndarray) -> ItemInputs:
    """Select consecutive rows, without their groups."""
    part = slice(rows[0], rows[-1] + 1)
    return ItemInputs(
        ids=items.ids[part],
        numbers=items.numbers[part],
        text=items.text[part],
        bags=tuple(bag.take(rows) for bag in items.bags),
    )


def _mapped(path: Path) -> np.ndarray:
    """Map an array; copy-on-write, as torch has no tensors that cannot be written."""
    return np.asarray(np.load(path, mmap_mode="c"))
