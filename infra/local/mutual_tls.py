"""SeaweedFS's inner parts speak to each other under mutual TLS: who holds no certificate of this store gets no answer.

`weed mini` runs a master, a volume server and a filer beside the S3 API, and these ask nobody for keys: the filer
would read, write and delete every object for anyone. With this file in its working folder each of them wants, on HTTP
and on gRPC, the one certificate of an authority whose key was thrown away once it had signed it.
"""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.local.process import LOOPBACK
from infra.local.secrets import write_private_text

SECURITY_FILE = "security.toml"  # the name that weed looks for in its working folder
GRPC_PARTS = ("master", "volume", "filer", "s3", "admin", "worker", "msg_broker", "msg_agent", "mq", "client")
HTTPS_PARTS = ("master", "volume", "filer", "admin", "client")
FIRST_DAY = datetime.datetime(2020, 1, 1)  # not today: a machine's clock may be wrong
NO_LAST_DAY = datetime.datetime(9999, 12, 31, 23, 59, 59)  # "no well-defined expiration date", RFC 5280, 4.1.2.5


def write_security_file(home: Path) -> None:
    """Write weed's `security.toml` with a certificate of its own into `home`, once; every file with mode 600."""
    path = home / SECURITY_FILE
    if path.exists():
        return
    authority, certificate, key = _certificate()
    files = {"ca": home / "authority.pem", "cert": home / "certificate.pem", "key": home / "key.pem"}
    for file, text in zip(files.values(), (authority, certificate, key), strict=True):
        write_private_text(file, text)
    pair = f'cert = "{files["cert"]}"\nkey = "{files["key"]}"\n'
    ca = f'ca = "{files["ca"]}"\n'
    sections = ["[grpc]\n" + ca]
    sections += [f"[grpc.{part}]\n{pair}" for part in GRPC_PARTS]
    sections += [f"[https.{part}]\n{pair}{ca}" for part in HTTPS_PARTS]
    write_private_text(path, "\n".join(sections) + "enabled = true\n")  # of the last section, the client's


def _certificate() -> tuple[str, str, str]:
    """Return, as PEM, an authority, the one certificate that it ever signs, and this certificate's key."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = _name("local object store: authority")
    authority = (
        _builder(authority_name, authority_name, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    address = x509.IPAddress(ipaddress.ip_address(LOOPBACK))
    certificate = (
        _builder(_name("local object store"), authority_name, key)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return (
        authority.public_bytes(Encoding.PEM).decode(),
        certificate.public_bytes(Encoding.PEM).decode(),
        private.decode(),
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(FIRST_DAY)
        .not_valid_after(NO_LAST_DAY)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
