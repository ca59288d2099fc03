"""Urls, passwords and TLS of Redis: what is refused, what is sent, and that no message holds a secret."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from features.store import open_store
from features.store.redis_nodes import parse_url
from recsys.config import StoreConfig
from recsys.errors import ConfigError, StoreError

SECRET = "hunter2"
PATIENT = {"connect_timeout_ms": 60_000, "read_timeout_ms": 60_000, "write_timeout_ms": 120_000}
"""A machine that stalls for seconds fails no call."""


def test_a_url_is_taken_apart():
    address = parse_url("rediss://anna@cache.example/3")
    assert (address.host, address.port, address.db, address.username) == ("cache.example", 6379, 3, "anna")
    assert (address.tls, address.cluster) == (True, False)
    assert str(address) == "rediss://cache.example:6379/3"
    address = parse_url("redis+cluster://[::1]:7000")
    assert (address.host, address.port, address.tls, address.cluster) == ("::1", 7000, False, True)


@pytest.mark.parametrize(
    "url",
    ["redis://", "redis://host/x", "redis://host:port", "redis://host?db=3", "redis+cluster://host/1"],
)
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ConfigError, match=r"\[store\] url"):
        parse_url(url)


@pytest.mark.parametrize("url", [f"redis://:{SECRET}@host", f"rediss://anna:{SECRET}@host:1/0"])
def test_a_password_in_the_url_is_refused_and_not_shown(url, make_config):
    with pytest.raises(ConfigError, match="put the password into the environment variable") as caught:
        make_config(store={"url": url})
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        parse_url(url)
    assert SECRET not in str(caught.value)


def test_events_must_outlast_three_periods(make_config):
    with pytest.raises(ConfigError, match=r"delta_ttl .* write at least 84d"):
        make_config(store={"url": "redis://host"}, period="P1M")
    make_config(store={"url": "redis://host", "delta_ttl": "84d"}, period="P1M")


def test_the_password_comes_from_the_environment(start_valkey, tmp_path, monkeypatch, caplog, capsys):
    server = start_valkey()
    with redis.Redis(port=server.port) as client:
        client.config_set("requirepass", SECRET)
    config = StoreConfig(url=f"redis://127.0.0.1:{server.port}", password_env="SHOP_PASSWORD", **PATIENT)
    messages = []
    for password in ("", SECRET + "x"):
        monkeypatch.setenv("SHOP_PASSWORD", password)
        store = open_store(config, tmp_path)
        with pytest.raises(StoreError, match="password_env") as caught:
            store.get_many("v1", ["u"])
        messages += [str(caught.value), str(store.health())]
        store.close()
    monkeypatch.setenv("SHOP_PASSWORD", SECRET)
    store = open_store(config, tmp_path)
    assert store.health()["status"] == "ok"
    store.close()
    assert SECRET not in "".join(messages) + caplog.text + capsys.readouterr().out


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Make a self-signed certificate of 127.0.0.1; give (certificate file, key file)."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def tls_port(certificate, start_valkey):
    """Put TLS in front of a Valkey, whose wheel is built without it."""
    server = start_valkey()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, target):
        with source, target:
            try:
                while data := source.recv(65536):
                    target.sendall(data)
            except OSError:
                return

    def accept():
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            try:
                client = context.wrap_socket(raw, server_side=True)
            except (ssl.SSLError, OSError):
                raw.close()
                continue
            upstream = socket.create_connection(("127.0.0.1", server.port))
            for pair in ((client, upstream), (upstream, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_tls_checks_the_servers_certificate(tls_port, certificate, tmp_path):
    config = StoreConfig(url=f"rediss://127.0.0.1:{tls_port}", **PATIENT)
    unknown = open_store(config, tmp_path)
    with pytest.raises(StoreError, match="CERTIFICATE_VERIFY_FAILED"):
        unknown.get_many("v1", ["u"])
    unknown.close()
    known = open_store(config.model_copy(update={"tls_ca_file": certificate[0]}), tmp_path)
    assert known.publish("v1", [("u", b"x")], {}, 1) == 1
    assert known.get_many("v1", ["u"])[0].base == b"x"
    known.close()


def test_without_tls_a_tls_port_is_an_error(tls_port, tmp_path):
    store = open_store(StoreConfig(url=f"redis://127.0.0.1:{tls_port}"), tmp_path)
    with pytest.raises(StoreError):
        store.get_many("v1", ["u"])
    store.close()
