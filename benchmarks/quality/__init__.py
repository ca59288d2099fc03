"""`recsys bench quality`: our models beside simple ones, on public sets, by the published protocols.

To add a set, write one file in `sets/` and one line in SETS below. The file has one function that reads the
published files and gives a `QualitySet`:

- `rows`: name -> `Row(train)`, where `train(seed)` gives a `Run`: predictions of the validation rows and of
  the test rows. A simple system is `baseline(fit)`. Nothing in them may look at test labels.
- `validation` and `test`: a `Measure` per head and metric; each names an output of the runs, its labels and
  its users. A set of user-item pairs gets them from `Pairs.measures` and `catalogue_lists.list_measures`.
- `protocol`, `interval`, `budget`: one sentence each. `published`: the figures of papers under this protocol.
- `questions`: pairs of rows that are compared, besides the chosen row with every baseline.

The driver (`driver.measure_set`) does the rest: it trains rows over seeds, prints news, makes figures and
intervals, chooses on validation and compares row with row. `models/` has models of user-item pairs and of
tables, `baselines/` the simple systems, `readers/` what reads published files.
"""

SETS: dict[str, str] = {
    "book-crossing": "benchmarks.quality.sets.book_crossing:open_book_crossing",
    "census-income": "benchmarks.quality.sets.census_income:open_census",
    "coat": "benchmarks.quality.sets.coat:open_coat",
    "kuairand": "benchmarks.quality.sets.kuairand:open_kuairand",
    "ml-100k": "benchmarks.quality.sets.movielens_by_time:open_ml_100k",
    "ml-100k-top10": "benchmarks.quality.sets.movielens_top_ten:open_top_ten",
    "ml-1m": "benchmarks.quality.sets.movielens_folds:open_ml_1m",
    "ml-1m-loo": "benchmarks.quality.sets.movielens_leave_one_out:open_leave_one_out",
    "ml-latest-small": "benchmarks.quality.sets.movielens_by_time:open_ml_latest_small",
    "retailrocket": "benchmarks.quality.sets.retailrocket:open_retailrocket",
    "sequences": "benchmarks.quality.sets.sequences:open_sequences",
    "shop": "benchmarks.quality.sets.simulated_shop:open_shop",
}
"""Set -> "module:function" of the folder with its published files and a scratch folder: `OpenSet`."""
