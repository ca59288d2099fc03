"""One step of the ranker where torch and numpy are the only packages; `test_light_imports` runs it."""

from types import SimpleNamespace

import torch

from recsys.batch import Batch, HistoryIndex, Negatives
from recsys.head_kinds import HEAD_KINDS
from recsys.model.embeddings import LocalTables, TableSpec
from recsys.model.input_sizes import Inputs
from recsys.model.ranker import Ranker
from training.balancing.weights import Fixed
from training.trainer.fit import fit
from training.trainer.settings import FitSettings

trunk = SimpleNamespace(name="ple", num_experts=2, task_experts=1, hidden=(8,))
model = SimpleNamespace(
    trunk=trunk,
    history=SimpleNamespace(encoder="attention"),
    head_hidden=4,
    tower_hidden=8,
    embedding_dim=4,
    attention_dim=4,
    dropout=0.0,
    position_bias=True,
    ensemble_size=1,
)
heads = [
    SimpleNamespace(
        name=name,
        kind=HEAD_KINDS[kind],
        loss_name=next(iter(HEAD_KINDS[kind].losses)),
        parent=None,
        transfer_from=None,
        hidden=None,
        debias=None,
        learning_rate_scale=1.0,
        weight=1.0,
        list_weight=0.0,
        low=1.0,
        high=5.0,
        step=1.0,
        num_levels=5,
        observation=f"{name}:observed",
    )
    for name, kind in (("click", "binary"), ("stars", "ordinal"))
]
inputs = Inputs(
    user_tables=(("user_id", "user_id", 4),),
    item_tables=(("item_id", "item_id", 4),),
    context_tables=(),
    user_bags=(),
    item_bags=(),
    user_numbers=(),
    item_numbers=(),
    context_numbers=(),
    cross_numbers=(),
    history_kinds=(("click", 1),),
    text_dim=0,
)
ids, none, flag = torch.arange(6), torch.zeros(6, 0), torch.ones(6)
batch = Batch(
    rows={"user_id": ids, "item_id": ids},
    index={"user_id": ids, "item_id": ids},
    item_text_UT=none,
    user_numbers_BF=none,
    item_numbers_BF=none,
    context_numbers_BF=none,
    cross_numbers_BF=none,
    item_text_BT=none,
    history=HistoryIndex(item_E=ids, kind_E=ids * 0 + 1, age_E=ids, owner_E=ids, start_B=ids, by_item_E=ids),
    position_B=ids,
    labels={"click": flag, "stars": flag * 3},
    observed={"click": flag > 0, "stars": flag > 0},
    negatives=Negatives(
        index={"item_id": ids},
        numbers_MF=none,
        text_MT=none,
        share_M=flag,
        share_B=flag,
        uniform=1.0,
        user_B=ids,
        item_M=ids,
        item_B=ids,
        positive_P=ids,
        num_positives=6,
    ),
)
ranker = Ranker(inputs, heads, model)
tables = LocalTables(
    (TableSpec(name="user_id", size=6, dim=4), TableSpec(name="item_id", size=6, dim=4)), 0.1, 0
)
settings = FitSettings(
    learning_rate=0.01, weight_decay=0.0, retrieval_task="click", temperature=0.1, total_steps=1
)
log = fit(ranker, tables, [batch], Fixed({}), heads, settings)
assert set(log.losses[0]) == {"click", "stars", "retrieval"}, log.losses
print("one step made")
