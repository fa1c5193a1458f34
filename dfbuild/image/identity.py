"""The SSH keys of a work directory's guests: one for whoever logs in, one that the guests show."""

from __future__ import annotations

import shutil
import struct
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from dfbuild.workspace import Workspace

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

_TYPE = b"ssh-ed25519"
_RSA_BITS = 2048


class Kind(StrEnum):
    """What keys there are: RSA ones in the format of OpenSSL, for servers of a time that knew no other."""

    ED25519 = "ed25519"
    RSA = "rsa"


@dataclass(frozen=True, slots=True)
class Identity:
    """`client_key` is the private key file to log in with; the public keys are `ssh-ed25519 AAAA…` lines
    (`ssh-rsa`)."""

    client_key: Path
    client_public: str
    host_key: Path
    host_public: str


def ensure(workspace: Workspace, name: str, kind: Kind = Kind.ED25519) -> Identity:
    """The identity called `name`, made if there is none yet. Whoever comes first makes it, for everybody."""
    directory = workspace.identities / name
    if not directory.is_dir():
        _make(directory, kind)
    return Identity(
        client_key=directory / "client",
        client_public=_public(directory / "client.pub"),
        host_key=directory / "host",
        host_public=_public(directory / "host.pub"),
    )


def _make(directory: Path, kind: Kind) -> None:
    from cryptography.hazmat.primitives import serialization as form

    directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for name in ("client", "host"):
            key = _generate(kind)
            layout = form.PrivateFormat.OpenSSH if kind is Kind.ED25519 else form.PrivateFormat.TraditionalOpenSSL
            private = temporary / name
            private.touch(mode=0o600)
            private.write_bytes(key.private_bytes(form.Encoding.PEM, layout, form.NoEncryption()))
            public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
            private.with_suffix(".pub").write_bytes(public + b" dfbuild\n")
        try:
            temporary.rename(directory)
        except OSError:
            # Somebody else has filled it meanwhile, and theirs is as good.
            if not directory.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _generate(kind: Kind) -> Ed25519PrivateKey | RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    if kind is Kind.ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)


def _public(path: Path) -> str:
    kind, data, *_ = path.read_text(encoding="ascii").split()
    return f"{kind} {data}"


def dropbear_key(private: Path) -> bytes:
    """An Ed25519 key file as dropbear's server reads it (dropbear, src/ed25519.c: `buf_put_ed25519_priv_key`)."""
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_ssh_private_key(private.read_bytes(), password=None)
    secret = key.private_bytes(form.Encoding.Raw, form.PrivateFormat.Raw, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.Raw, form.PublicFormat.Raw)
    return _string(_TYPE) + _string(secret + public)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
