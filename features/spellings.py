"""Two spellings of one id: '007' and '7', 'U9' and 'u9', '17' and '17.0'.

To a table they are two users, or two items. Which of them are meant as one can only be guessed from how they
are written, so that a person is asked: nothing is joined here.
"""

from typing import Final

import polars as pl

from features.profile.model import IdSpellings

MAX_CASED: Final = 0.1
"""Of the ids with letters: where more go from a small letter to a capital one, case tells ids apart.

Of random ones with two letters or digits .18 do."""

_TRIMMED: Final = pl.col("id").str.strip_chars("'\" {}[]")
_TEXT: Final = _TRIMMED.str.to_lowercase()
_NUMBER: Final = _TEXT.str.replace(",", ".", literal=True).str.replace(r"\.0+$", "")
_WHOLE: Final = pl.when(_TEXT.str.contains(r"^-?\d([.,]\d+)?e\+?\d+$")).then(
    _NUMBER.cast(pl.Float64, strict=False).round(0).cast(pl.Int128, strict=False).cast(pl.String)
).otherwise(_NUMBER)  # fmt: skip
_FIGURES: Final = pl.col("id").str.extract(r"(\d+)\D*$").str.strip_chars_start("0")
# From what changes least to what changes most: case and quotes, leading zeros and .0, the figures alone, the
# figures that a spreadsheet keeps.
_ACROSS: Final = (
    _TEXT,
    _WHOLE.str.strip_chars_start("0"),
    _TEXT.str.replace_all(r"[^a-z0-9]", ""),
    pl.when(_FIGURES.str.len_bytes() > 0).then(_FIGURES),
    pl.when(_WHOLE.str.contains(r"^\d{12,}$")).then(
        pl.format("{}:{}", _WHOLE.str.slice(0, 5), _WHOLE.str.len_bytes())
    ),
)

_CHANGED: Final = r"[^a-z0-9]|^\D*0\d"
"""Found in every id that folding changes."""
_UUID: Final = "-".join(f"([0-9a-fA-F]{{{n}}})" for n in (8, 4, 4, 4, 12))
_UNSEEN: Final = "[\u00ad\u200b-\u200f\u2060\ufeff]"
# Inside one file less is taken for one id than across two: '1-23' and '12-3', 'user7' and 'item7' are two.
_REWRITTEN: Final = (
    (r"^[a-zA-Z]+://(?:www\.)?", ""),
    (r"/+$", ""),
    (f"^{_UUID}$", "$1$2$3$4$5"),
    (r"^(\d+)[.,]0+$", "$1"),
    (r"[\s_-]+", "-"),
    (r"^(\D*)0+(\d)", "$1$2"),
)


def spelt_twice(rows_of_ids: pl.DataFrame) -> IdSpellings:
    """Count the ids that are written in several ways, and their rows.

    Args: rows_of_ids: `id`, each once, and `rows`.
    """
    rows = int(rows_of_ids["rows"].sum())
    folded = rows_of_ids.select("id", pl.col("rows").cast(pl.Int64), same=_folded(rows_of_ids["id"]))
    several = folded.filter(pl.col("same").is_duplicated())
    if several.is_empty():
        return IdSpellings(ids=folded.height, rows=rows)
    several = several.sort("rows", "id", descending=[True, False])
    groups = several.group_by("same", maintain_order=True).agg("id", "rows", total=pl.col("rows").sum())
    apart = pl.col("total") - pl.col("rows").list.first()
    first = groups.sort(apart, "same", descending=[True, False]).row(0, named=True)
    return IdSpellings(
        ids=folded["same"].n_unique(),
        several=groups.height,
        rows=rows,
        apart=int(groups.select(apart.sum()).item()),
        example=(first["id"][0], first["rows"][0], first["id"][1], first["rows"][1]),
    )


def _folded(ids: pl.Series) -> pl.Series:
    """Write ids so that the spellings of one are the same."""
    if not ids.str.contains(_CHANGED).any():
        return ids
    text = _TRIMMED
    if not ids.str.len_bytes().eq(ids.str.len_chars()).all():
        text = pl.col("id").str.normalize("NFKC").str.replace_all(_UNSEEN, "").str.strip_chars("'\" {}[]")
    for pattern, written in _REWRITTEN:
        text = text.str.replace_all(pattern, written)
    # R writes 100000 as 1e+05.
    text = pl.when(text.str.contains(r"^\d(\.\d+)?[eE]\+\d{1,2}$")).then(
        text.cast(pl.Float64, strict=False).round(0).cast(pl.Int128, strict=False).cast(pl.String)
    ).otherwise(text)  # fmt: skip
    if not _case_tells(ids):
        text = text.str.to_lowercase()
    return pl.DataFrame({"id": ids}).select(text).to_series()


def _case_tells(ids: pl.Series) -> bool:
    """Tell whether ids are of digits, small and capital letters alike, as short random ones are."""
    with_letters, mixed = (int(ids.str.contains(part).sum()) for part in ("[a-zA-Z]", "[a-z][^a-z]*[A-Z]"))
    return mixed > MAX_CASED * with_letters


def spellings(missing: pl.Series, told: pl.Series, where: str) -> str:
    """Show two spellings of one id, else an id of each. Args: where: what has the ids `told`."""
    both = [pl.DataFrame({"id": ids}).drop_nulls() for ids in (missing, told)]
    for spelling in _ACROSS:
        seen, known = (ids.with_columns(same=spelling).drop_nulls("same") for ids in both)
        pairs = seen.join(known.unique("same"), on="same", suffix="_told").sort("id", "id_told")
        if pairs.height:
            return f": {pairs['id'][0]!r} of an event may be {pairs['id_told'][0]!r} of the {where}"
    example = f", which has ids like {told.drop_nulls()[0]!r}" if told.drop_nulls().len() else ""
    return f": {missing[0]!r} is not there{example}"


def one_id(one: str, other: str) -> bool:
    """Tell whether two ids differ in case, quotes, leading zeros or .0 alone."""
    spelt = pl.DataFrame({"id": [one, other]}).select(_ACROSS[1]).to_series()
    return spelt.null_count() == 0 and spelt.n_unique() == 1
