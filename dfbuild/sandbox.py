"""Bubblewrap command lines: the host read-only, only named directories writable, no network unless asked.

Builds and guests alike run inside one. bwrap(1) with `--die-with-parent` and a PID namespace takes everything
inside down when dfbuild dies, `kill -9` included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dfbuild.errors import UsageError

# A destination at or above one of these would hand a system directory to a build that runs as root.
_SYSTEM = tuple(
    Path(p) for p in ("/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/run", "/sbin", "/sys", "/usr", "/var/lib")
)

# Where a user's own runtime directory lies (XDG_RUNTIME_DIR), though it is below /run.
_USERS = Path("/run/user")


def require_destination(path: Path) -> Path:
    """`path`, absolute, if a build may write there; raises `UsageError` for empty, root and system paths."""
    if str(path) in ("", ".") or not path.is_absolute():
        raise UsageError(
            f"refusing to build into {str(path)!r}: the destination must be an absolute path",
            hint="an empty variable often ends here; name a directory inside the work directory",
        )
    resolved = path.resolve()
    users_own = _USERS in resolved.parents and resolved.parent != _USERS
    if resolved == Path("/") or any(
        resolved == system or resolved in system.parents or (system in resolved.parents and not users_own)
        for system in _SYSTEM
    ):
        raise UsageError(
            f"refusing to build into {path}: that is the host's own system",
            hint="name a directory inside the work directory",
        )
    return resolved


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What a sandboxed process may do.

    The host's `/tmp` is hidden; `readable` names inputs that may lie there. `devices` are device nodes that
    it may open (`/dev/kvm`).
    """

    writable: tuple[Path, ...]
    readable: tuple[Path, ...] = ()
    cwd: Path | None = None
    network: bool = False
    devices: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def argv(self, command: Sequence[str | Path]) -> list[str]:
        """The whole command line, bwrap first. Raises `UsageError` for a destination that is not safe."""
        if not self.writable:
            raise UsageError("refusing to run a build step without a destination of its own")
        line = [
            "bwrap", "--die-with-parent", "--new-session", "--unshare-all",
            *(["--share-net"] if self.network else []),
            "--cap-drop", "ALL",
            "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp",
        ]  # fmt: skip
        for path in self.readable:
            line += ["--ro-bind", str(path), str(path)]
        for device in self.devices:
            line += ["--dev-bind", str(device), str(device)]
        for path in self.writable:
            where = str(require_destination(path))
            line += ["--bind", where, where]
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": "/nonexistent",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            **self.environment,
        }
        line.append("--clearenv")
        for name, value in environment.items():
            line += ["--setenv", name, value]
        line += ["--chdir", str(self.cwd or self.writable[0])]
        return [*line, "--", *(str(word) for word in command)]
