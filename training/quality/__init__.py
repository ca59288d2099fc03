"""`recsys bench quality`: our models beside simple ones, on public sets, by the published protocols."""

SETS: dict[str, str] = {
    "book-crossing": "training.quality.caserec.bookcrossing:measure_bookcrossing",
    "census-income": "training.quality.census.measure:measure_census",
    "coat": "training.quality.coat.measure:measure_coat",
    "kuairand": "training.quality.nights.kuairand:measure_kuairand",
    "ml-100k": "training.quality.movielens.by_time:measure_ml_100k",
    "ml-100k-top10": "training.quality.movielens.top_ten:measure_top_10",
    "ml-1m": "training.quality.movielens.folds:measure_movielens",
    "ml-1m-loo": "training.quality.movielens.leave_one_out:measure_leave_one_out",
    "ml-latest-small": "training.quality.movielens.by_time:measure_ml_latest_small",
    "retailrocket": "training.quality.caserec.retailrocket:measure_retailrocket",
    "shop": "training.quality.nights.shop:measure_shop",
}
"""Set -> "module:function"; it takes the folder, the seeds, the rows wanted and what to call with news."""
