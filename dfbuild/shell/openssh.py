"""How OpenSSH's client gets into a guest: for a person's own `ssh`, `scp` and `rsync`. Pure."""

from __future__ import annotations

from pathlib import Path

from dfbuild.releases.schema import SshShell
from dfbuild.session.protocol import Manifest


def config(manifest: Manifest, data: SshShell, known_hosts: Path) -> str:
    """An ssh_config(5) for the guest under its name, whose host key is in `known_hosts`.

    What the release speaks is allowed beside what clients of today speak of their own accord.
    """
    host, port = manifest.ssh or ("", 0)
    lines = {
        "HostName": host,
        "Port": f"{port}",
        "User": manifest.login.user,
        **({"IdentityFile": _path(manifest.login.key)} if manifest.login.key else {}),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": _path(known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        **_more("KexAlgorithms", data.kex_algorithms),
        **_more("HostKeyAlgorithms", data.key_algorithms),
        **_more("PubkeyAcceptedAlgorithms", data.key_algorithms),
        **_more("Ciphers", data.ciphers),
        **_more("MACs", data.macs),
    }
    return "".join([f"Host {manifest.name}\n", *(f"    {name} {value}\n" for name, value in lines.items())])


def known_host(manifest: Manifest) -> str:
    """The line of a known_hosts file (sshd(8)) with the guest's host key."""
    host, port = manifest.ssh or ("", 0)
    return f"[{host}]:{port} {manifest.login.host_key.strip()}\n"


def _more(name: str, algorithms: tuple[str, ...]) -> dict[str, str]:
    return {name: f"+{','.join(algorithms)}"} if algorithms else {}


def _path(path: Path) -> str:
    return '"{}"'.format(str(path).replace("%", "%%"))
