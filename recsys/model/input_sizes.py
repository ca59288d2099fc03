"""Which tables, lists of ids and numbers a ranker reads, in which order and width."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Sizes of the ranker's inputs; derived from the feature definitions, stored in the bundle."""

    user_tables: tuple[tuple[str, str, int], ...]
    """(feature, vocabulary, dim) in order."""
    item_tables: tuple[tuple[str, str, int], ...]
    """The first one is item_id."""
    context_tables: tuple[tuple[str, str, int], ...]
    user_bags: tuple[tuple[str, str, int], ...]
    """(feature with a list of ids, vocabulary, dim) in order; the rows of a list are averaged."""
    item_bags: tuple[tuple[str, str, int], ...]
    user_numbers: tuple[tuple[str, int], ...]
    """(feature, width) in order."""
    item_numbers: tuple[tuple[str, int], ...]
    context_numbers: tuple[tuple[str, int], ...]
    cross_numbers: tuple[tuple[str, int], ...]
    history_kinds: tuple[tuple[str, int], ...]
    """(feedback kind, codes) in order: one code, or one per bin of the event's value."""
    text_dim: int
    past_numbers: tuple[tuple[str, int], ...] = ()
    """What a candidate is told by what its user took before; behind the cross numbers."""

    @property
    def features(self) -> frozenset[str]:
        """Name the features that are read, without kinds of events and texts."""
        tables = (table for entity in ("user", "item", "context") for table in self.tables(entity))
        numbers = (*self.user_numbers, *self.item_numbers, *self.context_numbers, *self.pair_numbers)
        return frozenset((*(feature for feature, *_ in tables), *(feature for feature, _ in numbers)))

    @property
    def num_user_numbers(self) -> int:
        """Count the columns of the user's numbers."""
        return sum(width for _, width in self.user_numbers)

    @property
    def num_item_numbers(self) -> int:
        """Count the columns of the item's numbers."""
        return sum(width for _, width in self.item_numbers)

    @property
    def num_context_numbers(self) -> int:
        """Count the columns of the context's numbers."""
        return sum(width for _, width in self.context_numbers)

    @property
    def pair_numbers(self) -> tuple[tuple[str, int], ...]:
        """List the numbers of a user and an item: aggregates by the item's columns, then by the past."""
        return (*self.cross_numbers, *self.past_numbers)

    @property
    def num_pair_numbers(self) -> int:
        """Count their columns."""
        return sum(width for _, width in self.pair_numbers)

    @property
    def num_past_numbers(self) -> int:
        """Count the columns of those by the user's past."""
        return sum(width for _, width in self.past_numbers)

    @property
    def num_history_kinds(self) -> int:
        """Count the kind codes of events, without 0 for none."""
        return sum(codes for _, codes in self.history_kinds)

    def learned_columns(self, attention_dim: int, num_trunk_in: int) -> tuple[slice, ...]:
        """Give the columns of the trunk's input that are learned, ascending; the numbers between are data."""
        widths = (  # learned, then data, in the order of `Ranker.trunk_input`
            (sum(d for *_, d in self.tables("user")), self.num_user_numbers),
            (attention_dim + sum(d for *_, d in self.tables("item")), self.num_item_numbers),
            (sum(d for *_, d in self.tables("context")), self.num_context_numbers + self.num_pair_numbers),
        )
        found, start = [], 0
        for learned, data in widths:
            found.append(slice(start, start + learned))
            start += learned + data
        return (*found, slice(start, num_trunk_in))

    def tables(self, entity: str) -> tuple[tuple[str, str, int], ...]:
        """List an entity's features with embedding tables: single ids, then lists."""
        found = {
            "user": (*self.user_tables, *self.user_bags),
            "item": (*self.item_tables, *self.item_bags),
            "context": self.context_tables,
        }
        return found[entity]
