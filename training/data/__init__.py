"""Day snapshots -> encoded rows -> batches.

Days come in order, the newest last; inside a day rows are shuffled. Memory holds one chunk of a day.
"""

from training.data.batcher import Batcher, BatchSettings, positive_share, text_by_number
from training.data.chunks import Cutting, count_steps, sizes_of
from training.data.encoded_files import EncodedDays
from training.data.encoded_rows import EncodedRows, encode_day, encode_learned_day, encode_rows
from training.data.held import held_scores
from training.data.scoring import ScoredRows, opened_day, scoring_batches
from training.data.stream import BatchStream, EncodedDay

__all__ = [
    "BatchSettings",
    "BatchStream",
    "Batcher",
    "Cutting",
    "EncodedDay",
    "EncodedDays",
    "EncodedRows",
    "ScoredRows",
    "count_steps",
    "encode_day",
    "encode_learned_day",
    "encode_rows",
    "held_scores",
    "opened_day",
    "positive_share",
    "scoring_batches",
    "sizes_of",
    "text_by_number",
]
