"""`recsys bench quality`: our models beside simple ones, on public sets, by the published protocols."""

SETS: dict[str, str] = {
    "census-income": "training.quality.census:measure_census",
    "coat": "training.quality.coat:measure_coat",
    "kuairand": "training.quality.kuairand:measure_kuairand",
    "ml-1m": "training.quality.movielens:measure_movielens",
    "shop": "training.quality.shop:measure_shop",
}
"""Set -> "module:function"; it takes the folder, the seeds, the rows wanted and what to call with news."""
