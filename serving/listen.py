"""gRPC servers: their options, and binding a checked address."""

import grpc

from recsys.errors import ConfigError
from serving.addresses import Tls, check_address, check_free, require_protection, tls_context

ChannelOptions = tuple[tuple[str, int], ...]


def server_options(connection_age_s: float, *, held: bool) -> ChannelOptions:
    """Give a server's options.

    Args: connection_age_s: clients connect anew after so long; held: as for `bind`.
    """
    return (
        # A second server on the same port must fail, not share. Workers share what their parent holds.
        ("grpc.so_reuseport", int(held)),
        ("grpc.max_receive_message_length", 1024 * 1024),
        ("grpc.max_send_message_length", 4 * 1024 * 1024),
        ("grpc.max_connection_age_ms", round(1000 * connection_age_s)),
        ("grpc.max_connection_age_grace_ms", 30_000),
    )


def bind(
    server: grpc.Server,
    address: str,
    option: str,
    tls: Tls | None,
    *,
    insecure: bool,
    known_callers: bool = False,
    held: bool = False,
) -> int:
    """Bind an address to a gRPC server and return its port.

    Args: option: the command's option, for error messages; insecure: allow an open address without TLS;
    known_callers: an open address must ask callers for a certificate; held: this server's parent process
    holds the port for its workers.
    Raises: ConfigError when the address is not one, is open without protection, or cannot be bound.
    """
    check_address(address, option)
    require_protection(address, option, tls, insecure=insecure, known_callers=known_callers)
    if not held:
        check_free(address, option)
    try:
        if tls is not None:
            return server.add_secure_port(address, _credentials(tls))
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(f"{option} {address} cannot be bound ({error}); choose another") from error


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    tls_context(tls)  # says what is wrong with a file; gRPC says that the address cannot be bound
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    authority = tls.client_ca.read_bytes() if tls.client_ca else None
    return grpc.ssl_server_credentials(
        [pair], root_certificates=authority, require_client_auth=authority is not None
    )
