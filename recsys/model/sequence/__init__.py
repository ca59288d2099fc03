"""Encoders of sequences by name: events [E, D], oldest first -> what each list says of its user [E, D]."""

from recsys.errors import ConfigError
from recsys.model.sequence.encoder import EncoderShape, SequenceEncoder
from recsys.model.sequence.hstu import Hstu
from recsys.model.sequence.sasrec import SasRec

ENCODERS: dict[str, type[SequenceEncoder]] = {"hstu": Hstu, "sasrec": SasRec}


def build_encoder(name: str, shape: EncoderShape) -> SequenceEncoder:
    """Build an encoder by name.

    Raises: ConfigError listing the known names.
    """
    if name not in ENCODERS:
        raise ConfigError(f"the encoder of sequences {name!r} is unknown; known: {', '.join(ENCODERS)}")
    return ENCODERS[name](shape)
