"""What ranks do in `test_sharded_tables`, forked with TorchRec imported: `python sharding_ranks.py FOLDER`.

Two ranks take steps with each kind of sharding and compare them with plain tables that see all ranks'
numbers; what they export is loaded by one rank and by four, which take one more step.
"""

import os
import sys
import traceback
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import distributed

from recsys.model.embeddings import LocalTables, TableSpec
from training.sharding.plan import KINDS, Room
from training.sharding.tables import ShardedTables

SPECS = (
    TableSpec(name="item_id", size=100, dim=16),
    TableSpec(name="hour", size=24, dim=8),
    TableSpec(name="user_id", size=65_600, dim=16),
)
RATE = 0.1


class Case:
    """One step: what each rank looks up, what it wants the rows to be, and which tables its losses reach."""

    def __init__(self, step, ranks):
        draw = torch.Generator().manual_seed(step)
        self.rows = [
            {s.name: torch.randperm(s.size, generator=draw)[:9].sort().values for s in SPECS}
            for _ in range(ranks)
        ]
        self.target = [{s.name: torch.randn(9, s.dim, generator=draw) for s in SPECS} for _ in range(ranks)]
        self.used = [[s.name for s in SPECS] for _ in range(ranks)]
        self.rows[-1]["hour"] = self.rows[0]["hour"][:4]  # a row of several ranks steps once
        if step == 1:
            self.rows[0]["user_id"] = self.rows[0]["user_id"][:0]
        if step == 2:  # a rank without a label, and losses that do not reach a table
            self.used[-1] = []
            self.used[0] = ["item_id"]

    def loss(self, rank, looked_up):
        """Sum the squares of a rank's rows minus its targets."""
        parts = ((looked_up[k] - self.target[rank][k][: len(looked_up[k])]).square() for k in self.used[rank])
        return sum(part.sum() for part in parts)

    def plain(self, tables):
        """Make the step of all ranks with plain tables."""
        every = {s.name: torch.unique(torch.cat([own[s.name] for own in self.rows])) for s in SPECS}
        leaves = tables.lookup(every)
        total = torch.zeros((), requires_grad=True)
        for rank, own in enumerate(self.rows):
            total = total + self.loss(
                rank, {k: leaves[k][torch.searchsorted(every[k], n)] for k, n in own.items()}
            )
        total.backward()
        tables.step(every, leaves)

    def shared(self, tables, rank):
        """Make this rank's part of the step."""
        leaves = tables.lookup(self.rows[rank])
        loss = self.loss(rank, leaves)
        if self.used[rank]:
            loss.backward()
        tables.step(self.rows[rank], leaves)


class BlockTables(LocalTables):
    """Plain tables with an accumulator per row and block of columns, as column-wise shards have them."""

    blocks = 2

    def __init__(self, *args):
        super().__init__(*args)
        self.by_block = {n: torch.zeros(len(s), self.blocks) for n, s in self.state.items()}

    def preview(self, name, numbers, gradient):
        parts = gradient.unflatten(1, (self.blocks, -1))
        held = self.by_block[name][numbers] + parts.square().mean(dim=2)
        self.by_block[name][numbers] = held
        move = -self.learning_rate * parts / held.sqrt()[:, :, None]
        return held.mean(dim=1), move.nan_to_num().flatten(1)


def same(found, expected, name):
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5, msg=lambda text: f"{name}: {text}")


def room(ranks):
    return Room(ranks=ranks, local_ranks=ranks, device="cpu", host_bytes=10**9)


def steps_of_each_kind(rank, ranks, folder):
    for kind in (*KINDS, None):
        plain = (BlockTables if kind == "column_wise" else LocalTables)(SPECS, RATE, 0)
        wanted = {s.name: kind for s in SPECS} if kind else {}
        spill = folder if kind == "row_wise" else None
        shared = ShardedTables(SPECS, RATE, room(ranks), 8, wanted, plain.export(), spill)
        cut = {p.sharding_type for module in shared.plan.plan.values() for p in module.values()}
        assert cut == ({kind} if kind else cut & {"table_wise", "row_wise"}), (kind, cut)
        for step in range(5):
            case = Case(step, ranks)
            case.shared(shared, rank)
            case.plain(plain)
        found = shared.export()
        assert bool(found) == (rank == 0), "rank 0 has the whole tables"
        for name, value in plain.export().items() if found else ():
            same(found[name], value, f"{kind} {name}")
        if kind == "row_wise" and found:
            save_file(found, folder / "of-two.safetensors")


def goes_on(rank, ranks, folder):
    weights = load_file(folder / "of-two.safetensors")
    shared = ShardedTables(SPECS, RATE, room(ranks), 8, {"item_id": "column_wise"}, weights)
    again = shared.export()
    for name, value in weights.items() if rank == 0 else ():
        same(again[name], value, name)
    plain = LocalTables(SPECS, RATE, 7)
    plain.load(weights)
    kept = ShardedTables(SPECS, RATE, room(ranks), 8, {}, weights)
    case = Case(9, ranks)
    case.shared(kept, rank)
    case.plain(plain)
    last = kept.export()
    for name, value in plain.export().items() if rank == 0 else ():
        same(last[name], value, name)


def run(work, ranks, folder):
    """Fork the ranks; end with the first that fails."""
    meeting = folder / f"{work.__name__}-{ranks}"
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 1
        try:
            distributed.init_process_group(
                "gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks
            )
            work(rank, ranks, folder)
            distributed.destroy_process_group()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    ended = [os.waitstatus_to_exitcode(os.wait()[1])]
    if ended[0] == 0:
        ended += [os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]) for _ in children[1:]]
    if any(ended):
        os.killpg(os.getpgid(0), 9)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    import torchrec.distributed  # noqa: F401

    place = Path(sys.argv[1])
    run(steps_of_each_kind, 2, place)
    for count in (1, 4):
        run(goes_on, count, place)
    print("equal")
