"""Where things lie inside the build sandbox: the same everywhere, so that results never tell machines apart.

The object tree and what lies in it have the names that the tree's own Makefile.inc1 gives them.
"""

from __future__ import annotations

from pathlib import Path

MACHINE = "i386"
SRC = Path("/usr/src")
OBJ = Path("/usr/obj")
KIT = Path("/kit")
"""The host kit, see `hostkit`."""
TOOLS = OBJ / f"usr/src/ctools_{MACHINE}_{MACHINE}"
"""Cross tools: `TOOLS_PREFIX`, which compilers find their parts by."""
WORLD = OBJ / f"usr/src/world_{MACHINE}"
"""Target headers and libraries: `USRDATA_PREFIX`, which compilers look for them in."""

_HOST = f"{KIT}/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def environment(epoch: int, ccver: str = "") -> dict[str, str]:
    """The environment of make(1): with `ccver` `cc` is that compiler of `TOOLS`, else the host kit's.

    Programs that run while building (`.nx`, `.no`) are compiled by the host kit either way.
    """
    names = {
        "PATH": _HOST,
        "LC_ALL": "C",
        "MACHINE": MACHINE,
        "MACHINE_ARCH": MACHINE,
        "NXENV": f"env PATH={_HOST}",
        "__MAKE_CONF": "/nonexistent",
        "MAKEOBJDIRPREFIX": str(OBJ),
        "OBJTREE": str(OBJ),
        "TOOLS_PREFIX": str(TOOLS),
        "USRDATA_PREFIX": str(WORLD),
        "SOURCE_DATE_EPOCH": str(epoch),
    }
    if ccver:
        names |= {"PATH": f"{TOOLS}/usr/bin:{_HOST}", "CCVER": ccver, "OBJFORMAT_PATH": str(TOOLS)}
    return names
