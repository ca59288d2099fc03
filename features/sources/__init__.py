"""Adapters: one file per data set, each turning raw files into the canonical tables of `recsys.schema`."""

from typing import Final

# name -> "module:function"; the function is `convert(src, out, *, step) -> ConversionSummary`.
SOURCES: Final[dict[str, str]] = {
    "kuairand": "features.sources.kuairand:convert",
    "movielens": "features.sources.movielens:convert",
}
