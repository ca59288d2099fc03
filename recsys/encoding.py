"""What an encoder is fitted to: vocabularies, statistics, bins of values, the text model. `features` fits it.

Files in a bundle: `vocabularies/<name>.parquet`, `encoder.json`, `text.safetensors`, `text_terms.parquet`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from recsys.errors import BundleError
from recsys.stages import write_json
from recsys.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberStatistics:
    """How one number is standardised; fitted on training days, then frozen for the lineage."""

    prior: float
    """Overall rate or mean that small counts shrink to; 0 for other transforms."""
    mean: float
    std: float
    edges: tuple[float, ...] = ()
    """Where a binned number is cut, ascending; empty for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModel:
    """TF-IDF (or sentence vectors) followed by a truncated SVD: terms [V], idf [V], components [V, T]."""

    terms: tuple[str, ...]
    idf: np.ndarray
    components: np.ndarray
    sentence_model: str = ""
    """Folder of the sentence-embedding model whose vectors [V] are projected instead; empty: TF-IDF."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderState:
    """Everything fitted that an encoder needs beside the feature definitions."""

    vocabularies: dict[str, Vocabulary]
    numbers: dict[str, NumberStatistics]
    history: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Feedback kind -> where histories cut the value of its events, ascending; k edges make k + 1 bins."""
    text: TextModel | None = None

    def digest(self) -> dict[str, str]:
        """Hash each vocabulary; the manifest keeps these."""
        return {name: vocabulary.digest() for name, vocabulary in self.vocabularies.items()}

    def save(self, folder: Path) -> None:
        """Write all files into an existing folder."""
        (folder / "vocabularies").mkdir(exist_ok=True)
        for name, vocabulary in self.vocabularies.items():
            vocabulary.save(folder / "vocabularies" / f"{name}.parquet")
        numbers = {name: [s.prior, s.mean, s.std, s.edges] for name, s in self.numbers.items()}
        said = {"numbers": numbers, "history": self.history, "vocabularies": list(self.vocabularies)}
        write_json(folder / "encoder.json", said)
        if self.text is not None:
            save_file({"idf": self.text.idf, "components": self.text.components}, folder / "text.safetensors")
            terms = pl.DataFrame({"term": pl.Series(self.text.terms, dtype=pl.String)})
            terms.write_parquet(
                folder / "text_terms.parquet", metadata={"sentence_model": self.text.sentence_model}
            )

    @classmethod
    def load(
        cls, folder: Path, load_vocabulary: Callable[[Path], Vocabulary] = Vocabulary.load
    ) -> "EncoderState":
        """Read what `save` wrote.

        Args: load_vocabulary: given the file of one.
        Raises: BundleError when a file, or the key of users' hashes, is missing or is not what its name says.
        """
        try:
            said = json.loads((folder / "encoder.json").read_text())
            numbers = {
                n: NumberStatistics(prior=p, mean=m, std=s, edges=tuple(e))
                for n, (p, m, s, e) in said["numbers"].items()
            }
            history = {kind: tuple(edges) for kind, edges in said["history"].items()}
            names = said["vocabularies"]
            text = _load_text(folder)
        except (
            OSError,
            KeyError,
            TypeError,
            ValueError,
            SafetensorError,
            pl.exceptions.PolarsError,
        ) as error:
            raise BundleError(f"{folder} holds no readable encoder ({error}); restore the bundle") from error
        vocabularies = {name: load_vocabulary(folder / "vocabularies" / f"{name}.parquet") for name in names}
        return cls(vocabularies=vocabularies, numbers=numbers, history=history, text=text)


def _load_text(folder: Path) -> TextModel | None:
    if not (folder / "text.safetensors").is_file():
        return None
    arrays = load_file(folder / "text.safetensors")
    path = folder / "text_terms.parquet"
    return TextModel(
        terms=tuple(pl.read_parquet(path)["term"].to_list()),
        idf=arrays["idf"],
        components=arrays["components"],
        sentence_model=pl.read_parquet_metadata(path).get("sentence_model", ""),
    )
