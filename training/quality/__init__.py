"""`recsys bench quality`: our models beside simple ones, on public sets, by the published protocols."""

SETS: dict[str, str] = {
    "census-income": "training.quality.census:measure_census",
    "coat": "training.quality.coat:measure_coat",
    "ml-1m": "training.quality.movielens:measure_movielens",
}
"""Set -> "module:function"; it takes the folder, the seeds, the rows wanted and what to call with news."""
