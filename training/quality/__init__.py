"""`recsys bench quality`: our models beside simple ones, on public sets, by the published protocols."""

SETS: dict[str, str] = {
    "census-income": "training.quality.census:measure_census",
}
"""Set -> "module:function"; a function takes the folder, the seeds and what to call with news."""
