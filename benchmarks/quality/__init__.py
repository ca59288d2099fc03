"""`recsys bench quality`: our models beside simple ones, on public sets, by the published protocols."""

SETS: dict[str, str] = {
    "book-crossing": "benchmarks.quality.caserec.bookcrossing:measure_bookcrossing",
    "census-income": "benchmarks.quality.census.measure:measure_census",
    "coat": "benchmarks.quality.coat.measure:measure_coat",
    "kuairand": "benchmarks.quality.nights.kuairand:measure_kuairand",
    "ml-100k": "benchmarks.quality.movielens.by_time:measure_ml_100k",
    "ml-100k-top10": "benchmarks.quality.movielens.top_ten:measure_top_10",
    "ml-1m": "benchmarks.quality.movielens.folds:measure_movielens",
    "ml-1m-loo": "benchmarks.quality.movielens.leave_one_out:measure_leave_one_out",
    "ml-latest-small": "benchmarks.quality.movielens.by_time:measure_ml_latest_small",
    "retailrocket": "benchmarks.quality.caserec.retailrocket:measure_retailrocket",
    "shop": "benchmarks.quality.nights.shop:measure_shop",
}
"""Set -> "module:function"; it takes the folder, the seeds, the rows wanted and what to call with news."""
