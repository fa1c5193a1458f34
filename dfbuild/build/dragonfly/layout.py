"""Where things lie inside the build sandbox: the same everywhere, so that results never tell machines apart.

The object tree and what lies in it have the names that the tree's own Makefile.inc1 gives them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SRC = Path("/usr/src")
OBJ = Path("/usr/obj")
KIT = Path("/kit")
"""The host kit, see `hostkit`."""

_HOST = f"{KIT}/bin:/usr/bin:/bin:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class Places:
    """What lies elsewhere for every machine that a tree is built for."""

    machine: str
    """`MACHINE`, and `MACHINE_ARCH`."""
    platform: str = ""
    """`MACHINE_PLATFORM`, where the tree knows of platforms."""

    @property
    def tools(self) -> Path:
        """Cross tools: `TOOLS_PREFIX`, which compilers find their parts by."""
        return OBJ / f"usr/src/ctools_{self.machine}_{self.machine}"

    @property
    def world(self) -> Path:
        """Target headers and libraries: `USRDATA_PREFIX`, which compilers look for them in."""
        return OBJ / f"usr/src/world_{self.machine}"

    def environment(self, epoch: int, ccver: str = "", binutils: str = "") -> dict[str, str]:
        """The environment of make(1): with `ccver` `cc` is that compiler of `tools`, else the host kit's.

        Where the tree knows of platforms, which `binutils` go with it is not its compiler's to say.

        Programs that run while building (`.nx`, `.no`) are compiled by the host kit either way.
        """
        names = {
            "PATH": _HOST,
            "LC_ALL": "C",
            "MACHINE": self.machine,
            "MACHINE_ARCH": self.machine,
            "NXENV": f"env PATH={_HOST}",
            "__MAKE_CONF": f"{KIT}/make.conf",  # which is not there
            "MAKEOBJDIRPREFIX": str(OBJ),
            "OBJTREE": str(OBJ),
            "TOOLS_PREFIX": str(self.tools),
            "USRDATA_PREFIX": str(self.world),
            "SOURCE_DATE_EPOCH": str(epoch),
        }
        if self.platform:
            # What the host has is nobody's business.
            names |= {"MACHINE_PLATFORM": self.platform, "HOST_BINUTILSVER": "none"}
        if ccver:
            names |= {"PATH": f"{self.tools}/usr/bin:{_HOST}", "CCVER": ccver, "OBJFORMAT_PATH": str(self.tools)}
        if ccver and self.platform:
            names["BINUTILSVER"] = binutils
        return names
