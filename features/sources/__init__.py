"""Adapters: one file per data set, each turning raw files into the canonical tables of `recsys.schema`."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Source:
    """A public data set that `recsys convert` reads."""

    converter: str
    """"module:function"; the function is a `features.sources.conversion.Converter`."""
    files: str
    """The files that it reads, for the help text; each may be gzipped."""
    config: str
    """A config to start from, in the repository."""


SOURCES: Final[dict[str, Source]] = {
    "hetrec": Source(
        "features.sources.hetrec:convert",
        "artists.dat, tags.dat, user_artists.dat, user_friends.dat, user_taggedartists.dat",
        "examples/hetrec.toml",
    ),
    "kuairand": Source(
        "features.sources.kuairand:convert",
        "interactions_*.parquet, user_features_pure.csv, video_features_basic_pure.csv, "
        "user_history_to_*.parquet",
        "examples/kuairand.toml",
    ),
    "movielens": Source(
        "features.sources.movielens:convert",
        "latest-small (ratings.csv, movies.csv), 100k (u.data, u.item, u.user, or RecBole's .inter, .item, "
        ".user) or 1m (ratings.dat, movies.dat, users.dat)",
        "examples/movielens.toml",
    ),
    "taobao": Source("features.sources.taobao:convert", "UserBehavior*.csv", "examples/taobao.toml"),
}
# Forms of a user's own files, which a mapping describes: `features.sources.mapped`.
FORMS: Final = ("csv", "parquet")
