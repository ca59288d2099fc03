"""Page tokens: signed, valid for ten minutes, each for one draw of one user.

The server keeps a request's scored candidates in memory, and a token refers to them. So page 2 continues the
list that page 1 began, even after a new bundle went live. They are kept for ten minutes and for the latest
requests only. A token whose candidates are gone is refused; the caller then asks for page 1 again.
"""

import base64
import hashlib
import hmac
import json
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass

from serving.request import FieldError
from serving.scored_candidates import ScoredCandidates

KEEP_MS = 10 * 60 * 1000
MAX_KEPT = 4_096
_MAC_BYTES = 16
_MAX_TOKEN = 2_048


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCursor:
    """Which page of which scored candidates."""

    scored: ScoredCandidates
    starts: tuple[int, ...]
    """First positions (from 0) of the pages up to this one."""


class PageTokens:
    """Keeps scored candidates that have more pages, and issues and reads their tokens."""

    def __init__(self, max_kept: int = MAX_KEPT, keep_ms: int = KEEP_MS) -> None:
        self._key = os.urandom(32)
        self._max_kept = max_kept
        self._keep_ms = keep_ms
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[int, ScoredCandidates, str]] = OrderedDict()

    def issue(self, scored: ScoredCandidates, starts: tuple[int, ...], owner: str, now_ms: int) -> str:
        """Keep scored candidates and return the token of the page that begins at the last of `starts`."""
        expires_ms = now_ms + self._keep_ms
        with self._lock:
            self._kept[scored.request_id] = (expires_ms, scored, owner)
            self._kept.move_to_end(scored.request_id)
            while len(self._kept) > self._max_kept or self._oldest_expired(now_ms):
                self._kept.popitem(last=False)
        body = json.dumps([scored.request_id, list(starts)], separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._mac(body) + body).decode().rstrip("=")

    def read(self, token: str, owner: str, now_ms: int) -> PageCursor:
        """Return the page that a token refers to.

        Raises: FieldError when this server did not issue it, it is another user's, or it has expired.
        """
        request_id, starts = self._decode(token)
        with self._lock:
            expires_ms, scored, issued_to = self._kept.get(request_id, (0, None, ""))
        if scored is None or expires_ms < now_ms:
            raise FieldError("page_token", "it has expired; ask for the first page again")
        if issued_to != owner:
            raise FieldError(
                "page_token", "it belongs to another user's list; send the user_id it was made for"
            )
        return PageCursor(scored=scored, starts=starts)

    def _decode(self, token: str) -> tuple[str, tuple[int, ...]]:
        try:
            data = base64.urlsafe_b64decode(token[:_MAX_TOKEN] + "=" * (-len(token) % 4))
        except ValueError:
            data = b""
        mac, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body)):
            raise FieldError(
                "page_token",
                "this server did not issue it; send next_page_token unchanged, or leave it empty",
            )
        request_id, starts = json.loads(body)
        return request_id, tuple(starts)

    def _oldest_expired(self, now_ms: int) -> bool:
        return bool(self._kept) and next(iter(self._kept.values()))[0] < now_ms

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)[:_MAC_BYTES]
