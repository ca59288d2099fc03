"""`recsys bench quality`: our models beside simple ones, on public sets, by the published protocols."""

SETS: dict[str, str] = {
    "book-crossing": "training.quality.bookcrossing:measure_bookcrossing",
    "census-income": "training.quality.census:measure_census",
    "coat": "training.quality.coat:measure_coat",
    "kuairand": "training.quality.kuairand:measure_kuairand",
    "ml-100k": "training.quality.movielens_time:measure_ml_100k",
    "ml-100k-top10": "training.quality.movielens_top:measure_top_10",
    "ml-1m": "training.quality.movielens:measure_movielens",
    "ml-1m-loo": "training.quality.movielens_loo:measure_leave_one_out",
    "ml-latest-small": "training.quality.movielens_time:measure_ml_latest_small",
    "retailrocket": "training.quality.retailrocket:measure_retailrocket",
    "shop": "training.quality.shop:measure_shop",
}
"""Set -> "module:function"; it takes the folder, the seeds, the rows wanted and what to call with news."""
