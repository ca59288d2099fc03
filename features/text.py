"""Item text -> vectors: TF-IDF and a truncated SVD; no download.

Source: latent semantic analysis, Deerwester et al., JASIS 1990.
"""

import numpy as np
import polars as pl
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from recsys.encoding import TextModel

MAX_TERMS = 20_000


def join_text(items: pl.DataFrame, columns: tuple[str, ...]) -> list[str]:
    """Concatenate an item's text columns, nulls and absent columns left out; lists are joined by spaces."""
    parts = []
    for name in columns:
        if name in items.columns:
            column = items[name]
            parts.append(
                (column.list.join(" ") if column.dtype == pl.List else column.cast(pl.String)).fill_null("")
            )
    if not parts:
        return [""] * items.height
    return (
        pl.DataFrame(dict(enumerate_names(parts)))
        .select(pl.concat_str(pl.all(), separator=" "))
        .to_series()
        .to_list()
    )


def enumerate_names(parts: list[pl.Series]) -> list[tuple[str, pl.Series]]:
    """Give each part a column name of its own."""
    return [(f"part_{i}", part) for i, part in enumerate(parts)]


def fit_text(texts: list[str], dim: int, seed: int) -> TextModel | None:
    """Fit on the catalogue of the training days; None where there is no text to learn from."""
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=MAX_TERMS, dtype=np.float64)
    try:
        matrix = vectorizer.fit_transform(texts)
    except ValueError:  # sklearn's way to say that no term is left
        return None
    rank = min(dim, min(matrix.shape) - 1)
    if rank < 1:
        return None
    svd = TruncatedSVD(n_components=rank, random_state=seed).fit(matrix)
    components = np.zeros((matrix.shape[1], dim), np.float32)
    components[:, :rank] = svd.components_.T
    return TextModel(
        terms=tuple(vectorizer.get_feature_names_out().tolist()),
        idf=vectorizer.idf_.astype(np.float32),
        components=components,
    )


def embed_text(model: TextModel, texts: list[str]) -> np.ndarray:
    """Map texts [N] to vectors [N, T] float32 of unit length; a text without known terms is all zeros."""
    vectorizer = TfidfVectorizer(sublinear_tf=True, vocabulary={t: i for i, t in enumerate(model.terms)})
    vectorizer.idf_ = model.idf.astype(np.float64)
    vectors = vectorizer.transform(texts) @ model.components.astype(np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit
