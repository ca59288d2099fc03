"""What a worker says of itself to the others: its version, devices, store and journal, as JSON."""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self, get_args

State = Literal["absent", "starting", "serving", "draining", "stopped", "restarting"]
STATES: tuple[State, ...] = get_args(State)
"""A worker is `starting` until it answers, and `restarting` while its parent waits to start it again."""
_MAX_TEXT = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """One worker's facts at one instant."""

    server_id: str = ""
    pid: int = 0
    version: str = ""
    """The version that answers; empty: the popular list."""
    loaded_versions: tuple[str, ...] = ()
    """Those that a request may name, newest first."""
    loaded_at_ms: int = 0
    started_at_ms: int = 0
    published_at_ms: int = 0
    """When these facts were gathered."""
    reload_error: str = ""
    index_kind: str = ""
    index_device: str = ""
    device: str = ""
    engine: str = ""
    engines_refused: str = ""
    store: dict[str, str] = field(default_factory=dict)
    """`FeatureStore.health`: its kind, and whether it answers."""
    journal_healthy: bool = True
    journal_bytes: int = 0

    def encode(self, most_bytes: int) -> bytes:
        """Convert to at most so many bytes: long texts are cut, then versions left out from the oldest on."""
        values: dict[str, Any] = asdict(self)
        values["store"] = {name[:_MAX_TEXT]: text[:_MAX_TEXT] for name, text in self.store.items()}
        for name in ("reload_error", "engines_refused"):
            values[name] = values[name][:_MAX_TEXT]
        while True:
            # Escapes of letters beyond ASCII would take up to twelve bytes each. A path may be no valid text.
            data = json.dumps(values, ensure_ascii=False).encode(errors="replace")
            if len(data) <= most_bytes or not values["loaded_versions"]:
                break
            values["loaded_versions"] = values["loaded_versions"][:-1]
        assert len(data) <= most_bytes, len(data)
        return data

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` gave."""
        known = {part.name for part in fields(cls)}
        values = {name: value for name, value in json.loads(data).items() if name in known}
        return cls(**{**values, "loaded_versions": tuple(values["loaded_versions"])})
