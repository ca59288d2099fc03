"""Item text -> vectors: TF-IDF and a truncated SVD; no download. Or a sentence-embedding model by local path.

Source: latent semantic analysis, Deerwester et al., JASIS 1990.
"""

from functools import cache
from typing import Any

import numpy as np
import polars as pl

from recsys.encoding import TextModel
from recsys.errors import ConfigError

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


def fit_text(texts: list[str], dim: int, seed: int, sentence_model: str = "") -> TextModel | None:
    """Fit on the catalogue of the training days; None where there is no text to learn from.

    Args: sentence_model: folder of a sentence-embedding model; its vectors are projected to `dim` by an SVD.
    """
    if sentence_model:
        vectors = _sentence_vectors(sentence_model, texts)
        return TextModel(terms=(), idf=np.zeros(0, np.float32), components=_components(vectors, dim, seed),
                         sentence_model=sentence_model)  # fmt: skip
    from sklearn.feature_extraction.text import TfidfVectorizer  # 1.5 s, which ranks need not wait for

    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=MAX_TERMS, dtype=np.float64)
    try:
        matrix = vectorizer.fit_transform(texts)
    except ValueError:  # sklearn's way to say that no term is left
        return None
    if min(matrix.shape) < 2:
        return None
    return TextModel(
        terms=tuple(vectorizer.get_feature_names_out().tolist()),
        idf=vectorizer.idf_.astype(np.float32),
        components=_components(matrix, dim, seed),
    )


def embed_text(model: TextModel, texts: list[str]) -> np.ndarray:
    """Map texts [N] to vectors [N, T] float32 of unit length; a text without known terms is all zeros.

    Raises: ConfigError when the sentence model that the bundle was made with is not on this machine.
    """
    if model.sentence_model:
        return _unit(_sentence_vectors(model.sentence_model, texts) @ model.components.astype(np.float64))
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, vocabulary={t: i for i, t in enumerate(model.terms)})
    vectorizer.idf_ = model.idf.astype(np.float64)
    return _unit(vectorizer.transform(texts) @ model.components.astype(np.float64))


def _components(matrix: Any, dim: int, seed: int) -> np.ndarray:
    """Fit the projection [V, T] of vectors [N, V]; columns past the rank are zeros."""
    from sklearn.decomposition import TruncatedSVD

    rank = min(dim, min(matrix.shape) - 1)
    # It divides by the variance of the texts: where all are alike, there is none.
    with np.errstate(divide="ignore", invalid="ignore"):
        svd = TruncatedSVD(n_components=rank, random_state=seed).fit(matrix)
    components = np.zeros((matrix.shape[1], dim), np.float32)
    components[:, :rank] = svd.components_.T
    return components


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit


def _sentence_vectors(folder: str, texts: list[str]) -> np.ndarray:
    """Embed texts one by one in a fixed batch, so that a text's vector does not depend on its neighbours."""
    vectors = _sentence_model(folder).encode(texts, batch_size=1, normalize_embeddings=True)
    found: np.ndarray = np.asarray(vectors, np.float64)
    return found


@cache
def _sentence_model(folder: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ConfigError(
            f"[features] text_model = {folder!r} needs sentence-transformers, which cannot be imported "
            f"({error}): pip install 'recsys-mtl[text]', or leave text_model out"
        ) from error
    try:
        return SentenceTransformer(folder, device="cpu", local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"[features] text_model = {folder!r} cannot be loaded ({error}); it must name the folder of a "
            "sentence-embedding model on this machine"
        ) from error
