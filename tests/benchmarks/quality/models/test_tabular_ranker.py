"""Members of a table's model: each reads its own rows and learns alone; they are read as their mean."""

import pytest
import torch

from benchmarks.quality.models.tabular_ranker import (
    COLUMNS,
    WIDE,
    TabularRanker,
    tabular_batch,
    tabular_specs,
)
from recsys.config import TrunkConfig
from recsys.model.embeddings import LocalTables
from recsys.tasks import TaskSpec
from training.objective import task_losses

TASKS = tuple(TaskSpec(name=n, feedback=n, head="binary", window="1d") for n in ("rich", "single"))
SIZE, ROWS, ENSEMBLE_SIZE = 12, 8, 3


@pytest.fixture
def made():
    torch.manual_seed(0)
    model = TabularRanker(
        TASKS,
        num_columns=2,
        num_numbers=3,
        dim=4,
        trunk=TrunkConfig(name="mmoe", num_experts=2, hidden=(8, 4)),
        head_hidden=4,
        dropout=0.0,
        ensemble_size=ENSEMBLE_SIZE,
    )
    tables = LocalTables(tabular_specs(SIZE, 4, len(TASKS), ENSEMBLE_SIZE), 0.1, 0)
    labels = {t.name: torch.arange(ROWS).float() % 2 for t in TASKS}
    index = torch.randint(SIZE, (ROWS, 2))
    batch = tabular_batch(index, torch.randn(ROWS, 3), labels, SIZE * ENSEMBLE_SIZE)
    return model.eval(), tables, batch


def test_models_of_an_ensemble_are_read_as_their_mean(made):
    model, tables, batch = made
    rows = tables.lookup(batch.rows)
    each, mean = model(batch, rows)[0], model.logits(batch, rows)
    for task in TASKS:
        each_model = each[task.name].view(ENSEMBLE_SIZE, ROWS)
        assert not torch.equal(each_model[0], each_model[1])
        torch.testing.assert_close(mean[task.name], each_model.mean(dim=0))


def test_a_model_of_an_ensemble_reads_and_teaches_its_own_rows_only(made):
    model, tables, batch = made
    rows = tables.lookup(batch.rows)
    second = {task: logits.view(ENSEMBLE_SIZE, ROWS)[1] for task, logits in model(batch, rows)[0].items()}
    sum(task_losses(second, batch, TASKS).values()).backward()
    for name in (COLUMNS, WIDE):
        taught = rows[name].grad.view(ENSEMBLE_SIZE, SIZE, -1).abs().sum(dim=(1, 2)) > 0
        assert taught.tolist() == [False, True, False]
    idle = [all(p.grad is None or not p.grad.any() for p in m.parameters()) for m in model.models]
    assert idle == [True, False, True]
