"""Listening addresses: HOST:PORT is checked, protected by TLS or loopback, and free. No gRPC in here."""

import errno
import ipaddress
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import ConfigError

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files. With `client_ca`, callers must show a certificate signed by it."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


def check_address(address: str, option: str) -> None:
    """Check that an address reads HOST:PORT (or unix:PATH).

    Raises: ConfigError, naming the option.
    """
    match = _ADDRESS.fullmatch(address)
    if is_unix(address) or (match is not None and int(match["port"]) < 65_536):
        return
    raise ConfigError(
        f"{option} {address!r} is not HOST:PORT with a port up to 65535; write one like 127.0.0.1:50051"
    )


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Read the PEM files as a server's.

    Raises: ConfigError when one cannot be read, or they do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.key, password="")  # a locked key would ask the terminal
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        raise ConfigError(
            f"--tls-cert {tls.certificate} and --tls-key {tls.key}"
            f"{f' and --tls-client-ca {tls.client_ca}' if tls.client_ca else ''} cannot be used "
            f"({error.reason or error}); give PEM files, and the key of the certificate without a password"
        ) from error
    except OSError as error:
        names = [str(file) for file in (tls.certificate, tls.key, tls.client_ca) if file is not None]
        raise ConfigError(
            f"{error.filename or ', '.join(names)} cannot be read: {error.strerror}; check the --tls files"
        ) from error
    return context


def require_different(addresses: Mapping[str, str | None]) -> None:
    """Check that no two options name one address; port 0 takes a free one each time.

    Args: addresses: option -> where it listens; None: nowhere.
    Raises: ConfigError.
    """
    taken: dict[str, str] = {}
    for option, address in addresses.items():
        if address is None or address.endswith(":0"):
            continue
        if address in taken:
            raise ConfigError(
                f"{taken[address]} and {option} are both {address}; give each a port of its own"
            )
        taken[address] = option


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


def is_unix(address: str) -> bool:
    """Tell whether an address is a socket file."""
    return address.startswith("unix:")


def is_loopback(address: str) -> bool:
    """Tell whether an address like `127.0.0.1:0` can be reached from this machine only."""
    host = address.rsplit(":", 1)[0].strip("[]")
    if host == "localhost" or is_unix(address):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_free(address: str, option: str) -> None:
    """Try a port with a plain socket first: gRPC does not say why it cannot bind one.

    Raises: ConfigError, with the reason.
    """
    host, _, port = address.rpartition(":")
    if is_unix(address) or port == "0":
        return
    try:
        where = socket.getaddrinfo(host.strip("[]") or None, int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(where[0], where[1]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where[4])
    except OSError as error:
        raise cannot_bind(address, option, error) from error


def cannot_bind(address: str, option: str, error: OSError) -> ConfigError:
    """Make the error of an address that cannot be bound."""
    why = "another process has the port" if error.errno == errno.EADDRINUSE else error.strerror
    return ConfigError(f"{option} {address} cannot be bound: {why}; choose another (port 0 takes a free one)")
