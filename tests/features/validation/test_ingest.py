"""Profiles of days: what is counted of labels, with the tables that it needs and no others."""

import polars as pl

from features.days import Days
from features.validation.ingest import Acceptances, Ingest
from features.validation.measure import matured_labels
from recsys.stages import Stages


def test_a_childs_labels_are_counted_under_its_parents_whenever_each_window_closes(
    shop_log, shop_chain, make_config, tmp_path
):
    base = make_config()
    late = {"purchase": 86_400 * 2, "click": 3_600}
    tasks = [task.model_dump() | {"window": late.get(task.name, task.window)} for task in base.tasks]
    config = make_config(task=tasks)
    stages = Stages(tmp_path)
    ingest = Ingest(log=shop_log, config=config, stages=stages, accepted=Acceptances(tmp_path / "accepted"))
    days = Days.of([*shop_chain], config)
    found = ingest.profiles(days, days.last)[0].labels["purchase"]
    first = days.place(found.day)
    assert days.last - first == 2
    received = pl.concat([s.table("feedback") for s in days[first:]])
    whole = matured_labels(days[first].table("examples"), received, config.tasks, days.end_of(days.last))
    assert {"labelled": found.labelled, "rows": found.rows} == whole["purchase"]
    assert found.labelled
