"""Listening addresses: HOST:PORT is checked, protected by TLS or loopback, and bound to a gRPC server."""

import errno
import ipaddress
import re
import socket
from dataclasses import dataclass
from pathlib import Path

import grpc

from recsys.errors import ConfigError

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files. With `client_ca`, callers must show a certificate signed by it."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


def bind(
    server: grpc.Server,
    address: str,
    option: str,
    tls: Tls | None,
    *,
    insecure: bool,
    known_callers: bool = False,
) -> int:
    """Bind an address to a gRPC server and return its port.

    Args: option: the command's option, for error messages; insecure: allow an open address without TLS;
    known_callers: an open address must ask callers for a certificate.
    Raises: ConfigError when the address is not one, is open without protection, or cannot be bound.
    """
    check_address(address, option)
    require_protection(address, option, tls, insecure=insecure, known_callers=known_callers)
    _check_free(address, option)
    try:
        if tls is not None:
            return server.add_secure_port(address, _credentials(tls))
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(f"{option} {address} cannot be bound ({error}); choose another") from error


def check_address(address: str, option: str) -> None:
    """Check that an address reads HOST:PORT (or unix:PATH).

    Raises: ConfigError, naming the option.
    """
    match = _ADDRESS.fullmatch(address)
    if address.startswith("unix:") or (match is not None and int(match["port"]) < 65_536):
        return
    raise ConfigError(
        f"{option} {address!r} is not HOST:PORT with a port up to 65535; write one like 127.0.0.1:50051"
    )


def require_protection(
    address: str, option: str, tls: Tls | None, *, insecure: bool, known_callers: bool
) -> None:
    """Check that an address which other machines can reach has TLS, and where asked for knows its callers.

    Raises: ConfigError when it has not, unless `insecure`.
    """
    if insecure or is_loopback(address):
        return
    if tls is None:
        raise ConfigError(
            f"{option} {address} can be reached from other machines: give --tls-cert and --tls-key, or "
            "--insecure when something else protects it"
        )
    if known_callers and tls.client_ca is None:
        raise ConfigError(
            f"{option} {address} would serve anyone on other machines: give --tls-client-ca, or choose "
            "127.0.0.1, or --insecure when something else protects it"
        )


def is_loopback(address: str) -> bool:
    """Tell whether an address like `127.0.0.1:0` can be reached from this machine only."""
    host = address.rsplit(":", 1)[0].strip("[]")
    if host == "localhost" or address.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_free(address: str, option: str) -> None:
    """Try a port with a plain socket first: gRPC does not say why it cannot bind one."""
    host, _, port = address.rpartition(":")
    if address.startswith("unix:") or port == "0":
        return
    try:
        where = socket.getaddrinfo(host.strip("[]") or None, int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(where[0], where[1]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where[4])
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "another process has the port" if taken else error.strerror
        raise ConfigError(
            f"{option} {address} cannot be bound: {why}; choose another (port 0 takes a free one)"
        ) from error


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    try:
        pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
        authority = tls.client_ca.read_bytes() if tls.client_ca else None
    except OSError as error:
        raise ConfigError(
            f"{error.filename} cannot be read: {error.strerror}; check the --tls files"
        ) from error
    return grpc.ssl_server_credentials(
        [pair], root_certificates=authority, require_client_auth=authority is not None
    )
