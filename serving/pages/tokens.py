"""Page tokens: the only state of a list between its pages. Signed, valid for ten minutes on every worker.

    token  = base64url(mac body)
    mac    = first 16 bytes of HMAC-SHA-256(key, body)
    body   = format:u8 explored:u8 slot:u8 list_id:12 expires_ms:u64 seed:u64 start:u32
             log_greedy:f64 log_drawn:f64 log_waiting:f64 log_uniform:f64
             request hashes:4 each, shown items: 8 each         (little-endian; slot 255: none)

A token is signed, not encrypted: it says nothing that its holder was not shown, but for the coin.
"""

import base64
import hashlib
import hmac
import struct

from recsys.policy import PrefixProbability
from serving.pages.keys import PageKeys
from serving.pages.list_state import LIST_ID_BYTES, MAX_SHOWN, ListState
from serving.pages.request_hash import HASH_BYTES, HASHED_FIELDS, changed_fields, other_method, request_hashes
from serving.request import FieldError, RankRequest

VALID_MS = 10 * 60 * 1000
_FORMAT = 3
_NO_SLOT = 255
_MAC_BYTES = 16
_HEAD = struct.Struct(f"<BBB{LIST_ID_BYTES}sQQIdddd")
_HASHES_BYTES = HASH_BYTES * len(HASHED_FIELDS)
_FIXED_BYTES = _MAC_BYTES + _HEAD.size + _HASHES_BYTES
MAX_TOKEN_CHARS = -(-(_FIXED_BYTES + 8 * MAX_SHOWN) * 4 // 3)
"""Length of the token of a list of which MAX_SHOWN items were shown."""


class PageTokens:
    """Issues and reads page tokens; keeps nothing but the keys."""

    def __init__(self, keys: PageKeys) -> None:
        self._keys = keys

    def issue(self, state: ListState, request: RankRequest, now_ms: int) -> str:
        """Return the token of a list's next page."""
        assert state.prefix is not None, "a list without a page needs no token"
        assert len(state.shown) <= MAX_SHOWN, len(state.shown)
        head = _HEAD.pack(
            _FORMAT,
            state.prefix.explored,
            _NO_SLOT if state.prefix.slot is None else state.prefix.slot,
            bytes.fromhex(state.list_id),
            now_ms + VALID_MS,
            state.seed,
            state.start,
            state.prefix.log_greedy,
            state.prefix.log_drawn,
            state.prefix.log_waiting,
            state.prefix.log_uniform,
        )
        shown = struct.pack(f"<{len(state.shown)}Q", *sorted(state.shown))
        body = b"".join((head, *request_hashes(request).values(), shown))
        return base64.urlsafe_b64encode(_mac(self._keys.signing(now_ms), body) + body).decode().rstrip("=")

    def read(self, request: RankRequest, now_ms: int) -> ListState:
        """Return the list that a request's token continues.

        Raises: FieldError when the token is too long, changed or expired, or when the request differs from
        the one that the token was issued for.
        """
        body = self._verified(request.page_token, now_ms)
        _, explored, slot, list_id, expires_ms, seed, start, *logs = _HEAD.unpack_from(body)
        if now_ms > expires_ms:
            raise FieldError("page_token", "it has expired; ask for the first page again")
        rest = body[_HEAD.size :]
        hashes = [rest[at : at + HASH_BYTES] for at in range(0, _HASHES_BYTES, HASH_BYTES)]
        if (issuer := other_method(hashes, request)) is not None:
            raise FieldError(
                "page_token",
                f"it continues a list of {issuer}; send it there, or leave it out to begin a new list",
            )
        if changed := changed_fields(hashes, request):
            raise FieldError(
                "page_token",
                f"{', '.join(changed)} changed since the page before; send it as before, or leave the token "
                "out to begin a new list",
            )
        shown = struct.unpack(f"<{(len(rest) - _HASHES_BYTES) // 8}Q", rest[_HASHES_BYTES:])
        return ListState(
            list_id=list_id.hex(),
            seed=seed,
            start=start,
            prefix=PrefixProbability(
                explored=bool(explored),
                log_greedy=logs[0],
                log_drawn=logs[1],
                log_waiting=logs[2],
                log_uniform=logs[3],
                slot=None if slot == _NO_SLOT else slot,
            ),
            shown=frozenset(shown),
        )

    def _verified(self, token: str, now_ms: int) -> bytes:
        if len(token) > MAX_TOKEN_CHARS:
            raise FieldError(
                "page_token",
                f"it has {len(token)} characters, and no token has more than {MAX_TOKEN_CHARS}; send "
                "next_page_token unchanged",
            )
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except ValueError:
            data = b""
        mac, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
        good = any(hmac.compare_digest(mac, _mac(key, body)) for key in self._keys.accepted(now_ms))
        if not good or body[0] != _FORMAT:
            raise FieldError(
                "page_token",
                "no server of this service issued it in the last ten minutes; send next_page_token "
                "unchanged, or leave it empty to begin a new list",
            )
        return body


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, hashlib.sha256)[:_MAC_BYTES]
