"""ccache(1) before compilers, where this host has it: what was compiled once is not compiled again.

A world is built anew for a change anywhere in the tree, a compiler for one in its own part of it, but most is
compiled from the same text. Kernels need no cache: their object trees outlive them (`objects.py`).
"""

from __future__ import annotations

import dataclasses
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from dfbuild.build.recipe import Artefact
from dfbuild.sandbox import Mount, Sandbox
from dfbuild.workspace import Workspace

_PROGRAM = "ccache"
_PLACE = Path("/ccache")
_COMPILERS = ("cc", "c++", "gcc", "g++")


def before(sandbox: Sandbox, toolchains: Iterable[Artefact], workspace: Workspace) -> Sandbox:
    """`sandbox` with ccache before the compilers of `toolchains`; as it is where there is no ccache.

    What counts of a compiler are the toolchains' keys and what `cc -v` says: the dispatcher is one file, whichever
    compiler `CCVER` makes it run.
    """
    return _before(sandbox, workspace, "%compiler% -v", " ".join(toolchain.key for toolchain in toolchains))


def before_host(sandbox: Sandbox, workspace: Workspace) -> Sandbox:
    """The same before the host's compilers. Of one, the kit's script that runs it and `cc --version` count."""
    return _before(sandbox, workspace, "cat %compiler%; %compiler% --version", "host")


def _before(sandbox: Sandbox, workspace: Workspace, check: str, namespace: str) -> Sandbox:
    """With the store in the workspace's cache; ccache(1) keeps it below 5 GB."""
    program = shutil.which(_PROGRAM)
    if program is None:
        return sandbox
    place = workspace.cache / _PROGRAM
    for directory in ("bin", "store"):
        (place / directory).mkdir(parents=True, exist_ok=True)
    for name in _COMPILERS:
        link = place / "bin" / name
        if not link.is_symlink():
            # Steps begin at a time.
            mine = link.with_name(f".{name}.{secrets.token_hex(4)}")
            mine.symlink_to(program)
            mine.replace(link)
    environment = {
        "PATH": f"{_PLACE}/bin:{sandbox.environment['PATH']}",
        "CCACHE_DIR": f"{_PLACE}/store",
        "CCACHE_COMPILERCHECK": check,
        # Of an object by its headers alone it can be wrong: one may have come that is found before them.
        "CCACHE_NODIRECT": "1",
        "CCACHE_NAMESPACE": namespace,
    }
    return dataclasses.replace(
        sandbox,
        mounts=(*sandbox.mounts, Mount(_PLACE), Mount(_PLACE / "bin", place / "bin"),
                Mount(_PLACE / "store", place / "store", writable=True)),
        environment={**sandbox.environment, **environment},
    )  # fmt: skip
