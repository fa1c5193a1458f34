"""dfbuild's own directory: where artefacts, runs and logs lie, and how files get there atomically."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dfbuild.errors import UsageError


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write `data` to `path` so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = data.encode() if isinstance(data, str) else data
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(raw)
        Path(temporary).chmod(0o644)
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@dataclass(frozen=True, slots=True)
class Workspace:
    """The work directory. Everything that dfbuild writes lies below `root`, sockets excepted."""

    root: Path

    @classmethod
    def locate(cls, option: str | None = None) -> Workspace:
        """From `--work`, else `DFBUILD_WORK`, else the user's data directory."""
        chosen = option or os.environ.get("DFBUILD_WORK")
        if chosen is None:
            import platformdirs

            return cls(platformdirs.user_data_path("dfbuild"))
        root = Path(chosen).expanduser().absolute()
        if root == Path("/"):
            raise UsageError("the work directory cannot be /", hint="name an empty directory with --work")
        return cls(root)

    @property
    def artefacts(self) -> Path:
        """`<kind>/<key>/`: finished build steps by content key."""
        return self.root / "artefacts"

    @property
    def bases(self) -> Path:
        """`<name>.json`: disks that were taken in from elsewhere."""
        return self.root / "bases"

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    @property
    def identities(self) -> Path:
        """SSH keys, made once per work directory."""
        return self.root / "identities"

    @property
    def cache(self) -> Path:
        """Verdicts about this host that are cheap to find again."""
        return self.root / "cache"

    @property
    def guests(self) -> Path:
        """`<name>/`: state files of guests that are kept up."""
        return self.root / "guests"

    @property
    def database(self) -> Path:
        return self.root / "results.sqlite"

    def run(self, run: str) -> Path:
        """A run's directory: transcripts, logs and reports, cell by cell."""
        return self.root / "runs" / run


def runtime_directory(prefix: str) -> Path:
    """A new directory of mode 0700 with a short path, for sockets (their paths end at 107 bytes)."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    usable = base is not None and len(base) < 40 and os.access(base, os.W_OK)
    return Path(tempfile.mkdtemp(prefix=f"dfb-{prefix}-", dir=base if usable else "/tmp"))
