"""What a list is: requests where the log has them, else a user's period and context."""

import polars as pl

from training.evaluation.evaluate import score_rows
from training.evaluation.list_groups import (
    choose_list_group,
    concat_lists,
    context_columns,
    list_group_of,
    number_lists,
)


def requests(*names):
    return pl.DataFrame({"request_id": list(names), "user_id": ["u"] * len(names)})


def test_requests_are_lists_where_half_of_the_rows_lie_in_requests_of_two():
    assert choose_list_group(requests("a", "a", "b", "c")) == "request"
    assert choose_list_group(requests("a", "a", "b", "c", "d")) == "user_period_context"


def test_a_request_id_of_two_users_is_two_requests():
    shared = pl.DataFrame({"request_id": ["a", "a", "b"], "user_id": ["u", "v", "u"]})
    assert choose_list_group(shared) == "user_period_context"
    assert number_lists(shared, "request", []).to_list() == [None, None, None]


def test_lists_are_numbered_without_gaps_and_single_rows_are_in_none():
    rows = pl.DataFrame(
        {
            "request_id": ["q", "p", "q", "o", "n"],
            "user_id": ["u", "v", "u", "v", "v"],
            "context_tab": ["1", None, "1", None, "2"],
        }
    )
    assert number_lists(rows, "request", ["context_tab"]).to_list() == [0, None, 0, None, None]
    by_context = number_lists(rows, "user_period_context", ["context_tab"])
    assert by_context.to_list() == [0, 1, 0, 1, None], "no context is a context, too"
    assert by_context.dtype == pl.Int64
    assert number_lists(rows, "user_period_context", []).to_list() == [0, 1, 0, 1, 1]


def test_lists_of_two_periods_stay_apart():
    periods = [[0, None, 0], [None, None], [0, 1, 0, 1], [0, 0]]
    frames = [pl.DataFrame({"list_group": p}, schema={"list_group": pl.Int64}) for p in periods]
    together = concat_lists(frames)["list_group"].to_list()
    assert together == [0, None, 0, None, None, 1, 2, 1, 2, 3, 3]


def test_a_list_of_the_shop_is_a_request(predictor, shop_chain, config):
    evaluated = {task.name: [4, 5] for task in config.tasks}
    assert list_group_of(shop_chain, evaluated, config.tasks) == "request"
    rows = score_rows(predictor, shop_chain, evaluated)
    of_list = rows.group_by("list_group").agg(pl.col("request_id").n_unique(), pl.len())
    assert of_list["request_id"].to_list() == [1] * of_list.height
    assert of_list["len"].min() > 1
    assert rows["list_group"].n_unique() == rows["request_id"].n_unique()


def test_only_labelled_rows_of_the_evaluated_days_choose(predictor, shop_chain, config):
    """Ratings of the shop are of single items of a request."""
    rating = [task for task in config.tasks if task.name == "rating"]
    assert list_group_of(shop_chain, {"rating": [3]}, rating) == "user_period_context"
    assert list_group_of(shop_chain, {}, config.tasks) == "request"
    rows = score_rows(predictor, shop_chain, {"rating": [3]})
    columns = ["user_id", *context_columns(config, shop_chain[3])]
    assert columns == ["user_id", "context_device"]
    contexts = shop_chain[3].table("examples").select("impression_id", "context_device")
    shown = rows.join(contexts, on="impression_id").drop_nulls("list_group")
    kinds = shown.group_by("list_group").agg(pl.col(columns).n_unique())
    assert kinds["user_id"].to_list() == kinds["context_device"].to_list() == [1] * kinds.height
    assert kinds.height == shown.select(columns).unique().height
