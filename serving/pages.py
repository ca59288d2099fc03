"""Page tokens: signed, short-lived, and good for one draw.

A token names a slate kept in memory, so that page 2 goes on in the very list that page 1 began, also after a
new bundle went live. Slates are kept for ten minutes and for the latest requests; a token that has outlived
its slate is refused with a plain message, and page 1 must be asked for again.
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
from serving.slate import Slate

KEEP_MS = 10 * 60 * 1000
MAX_SLATES = 4_096
_MAC_BYTES = 16
_MAX_TOKEN = 2_048


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A place in a slate."""

    slate: Slate
    starts: tuple[int, ...]
    """First positions (from 0) of the pages up to this one."""


class Pages:
    """Slates that have more pages, and the tokens that lead to them."""

    def __init__(self, max_slates: int = MAX_SLATES, keep_ms: int = KEEP_MS) -> None:
        self._key = os.urandom(32)
        self._max_slates = max_slates
        self._keep_ms = keep_ms
        self._lock = threading.Lock()
        self._slates: OrderedDict[str, tuple[int, Slate, str]] = OrderedDict()

    def remember(self, slate: Slate, starts: tuple[int, ...], owner: str, now_ms: int) -> str:
        """Keep a slate and give the token of its page that begins at the last of `starts`."""
        expires_ms = now_ms + self._keep_ms
        with self._lock:
            self._slates[slate.request_id] = (expires_ms, slate, owner)
            self._slates.move_to_end(slate.request_id)
            while len(self._slates) > self._max_slates or self._oldest_expired(now_ms):
                self._slates.popitem(last=False)
        body = json.dumps([slate.request_id, list(starts)], separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._mac(body) + body).decode().rstrip("=")

    def open(self, token: str, owner: str, now_ms: int) -> Page:
        """Find the page of a token.

        Raises: FieldError when the token is not ours, is another user's, or its slate is gone.
        """
        request_id, starts = self._read(token)
        with self._lock:
            expires_ms, slate, for_whom = self._slates.get(request_id, (0, None, ""))
        if slate is None or expires_ms < now_ms:
            raise FieldError("page_token", "it has expired; ask for the first page again")
        if for_whom != owner:
            raise FieldError(
                "page_token", "it belongs to another user's list; send the user_id it was made for"
            )
        return Page(slate=slate, starts=starts)

    def _read(self, token: str) -> tuple[str, tuple[int, ...]]:
        try:
            data = base64.urlsafe_b64decode(token[:_MAX_TOKEN] + "=" * (-len(token) % 4))
        except ValueError:
            data = b""
        mac, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body)):
            raise FieldError(
                "page_token",
                "it is no token of this server; send next_page_token unchanged, or leave it empty",
            )
        request_id, starts = json.loads(body)
        return request_id, tuple(starts)

    def _oldest_expired(self, now_ms: int) -> bool:
        return bool(self._slates) and next(iter(self._slates.values()))[0] < now_ms

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)[:_MAC_BYTES]
