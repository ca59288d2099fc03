"""Adapters: one file per data set, each turning raw files into the canonical tables of `recsys.schema`."""

from typing import Final

# name -> "module:function"; the function is `convert(src, out, *, step) -> ConversionSummary`.
SOURCES: Final[dict[str, str]] = {
    "hetrec": "features.sources.hetrec:convert",
    "kuairand": "features.sources.kuairand:convert",
    "movielens": "features.sources.movielens:convert",
    "taobao": "features.sources.taobao:convert",
}
# Forms of a user's own files, which a mapping describes: `features.sources.mapped`.
FORMS: Final = ("csv", "parquet")
