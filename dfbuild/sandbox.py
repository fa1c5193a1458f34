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

# What every sandbox has of its own.
_MADE = (Path("/dev"), Path("/proc"), Path("/run"), Path("/tmp"))

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
class Mount:
    """A file or directory of the host that lies at `inside` within the sandbox, where the host may have none.

    Without `outside` it is an empty directory for other mounts to lie in.
    """

    inside: Path
    outside: Path | None = None
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What a sandboxed process may do.

    The host's `/tmp` is hidden, and so is `/run`: who can open a socket there can ask the host's daemons for things
    that are done outside. `readable` names inputs that may lie in them. `mounts` put things at fixed places,
    outer ones before those inside them; what the host has at such a place is hidden. `devices` are device nodes
    that it may open (`/dev/kvm`).
    """

    writable: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    mounts: tuple[Mount, ...] = ()
    cwd: Path | None = None
    network: bool = False
    devices: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def argv(self, command: Sequence[str | Path]) -> list[str]:
        """The whole command line, bwrap first. Raises `UsageError` for a destination that is not safe."""
        own = [*self.writable, *(mount.inside for mount in self.mounts if mount.writable and mount.outside)]
        if not own:
            raise UsageError("refusing to run a build step without a destination of its own")
        line = [
            "bwrap", "--die-with-parent", "--new-session", "--unshare-all",
            *(["--share-net"] if self.network else []),
            "--cap-drop", "ALL",
            *_host([mount.inside for mount in self.mounts]),
            "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run", "--tmpfs", "/tmp",
            *(_resolver() if self.network else []),
        ]  # fmt: skip
        for path in self.readable:
            line += ["--ro-bind", str(path), str(path)]
        for device in self.devices:
            line += ["--dev-bind", str(device), str(device)]
        for path in self.writable:
            where = str(require_destination(path))
            line += ["--bind", where, where]
        for mount in self.mounts:
            line += _mounted(mount)
        if self.mounts:
            for empty in (Path("/"), *(mount.inside for mount in self.mounts if mount.outside is None)):
                line += ["--remount-ro", str(empty)]
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
        line += ["--chdir", str(self.cwd or own[0])]
        return [*line, "--", *(str(word) for word in command)]


def _resolver() -> list[str]:
    """What /etc/resolv.conf is a link to, where that lies in /run."""
    file = Path("/etc/resolv.conf").resolve()
    return ["--ro-bind-try", str(file), str(file)] if Path("/run") in file.parents else []


def _mounted(mount: Mount) -> list[str]:
    if mount.outside is None:
        return ["--tmpfs", str(mount.inside)]
    if mount.writable:
        return ["--bind", str(require_destination(mount.outside)), str(mount.inside)]
    return ["--ro-bind", str(mount.outside), str(mount.inside)]


def _host(inside: Sequence[Path]) -> list[str]:
    """The host's file system, read-only. Directories that get something new are made anew around what they hold."""
    for path in inside:
        if not path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
            raise UsageError(f"cannot put anything at {str(path)!r} in a sandbox")
    if not inside:
        return ["--ro-bind", "/", "/"]
    # Below a directory that is itself put there, the one who puts it there has the places.
    outermost = [path for path in inside if not any(other in path.parents for other in inside)]
    opened = {parent for path in outermost for parent in path.parents}
    line = ["--tmpfs", "/"]

    def show(directory: Path) -> None:
        for entry in sorted(directory.iterdir()):
            if entry in opened and not entry.is_symlink():
                line.extend(["--dir", str(entry)])
                show(entry)
            elif entry in outermost or entry in _MADE:
                continue
            elif entry.is_symlink():
                line.extend(["--symlink", str(entry.readlink()), str(entry)])
            else:
                line.extend(["--ro-bind-try", str(entry), str(entry)])

    show(Path("/"))
    return line
