"""What the tree's own makefiles install, as a part of an image: files, and the log of what only root could do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dfbuild.build import step
from dfbuild.build.dragonfly import image, install
from dfbuild.build.dragonfly.layout import OBJ, SRC
from dfbuild.build.recipe import Kitchen
from dfbuild.sandbox import Sandbox

_ROOT = OBJ / image.ROOT
_RAW_LOG = OBJ / "install.log"
_HIERARCHY = {"BSD.root.dist": "", "BSD.usr.dist": "usr"}

DESTINATION = {"DESTDIR": str(_ROOT), "METALOG": str(_RAW_LOG), "_SHLIBDIRPREFIX": ""}
"""For the environment of what installs. Links to shared libraries lead to where these will be in the guest."""


def clear(objects: Path) -> None:
    """Remove what an installation before this one left below `objects`: `layout.OBJ` in the sandbox."""
    shutil.rmtree(objects / image.ROOT, ignore_errors=True)
    (objects / _RAW_LOG.name).unlink(missing_ok=True)


def installed(objects: Path) -> dict[str, dict[str, str]]:
    """By path, what was said of everything that is there.

    Raises `BuildFailed` for a log that makes no sense, and for links into the object tree.
    """
    raw = (objects / _RAW_LOG.name).read_text(errors="surrogateescape")
    tree = install.survey(objects / image.ROOT)
    install.settled(tree, str(OBJ))
    return install.merge(install.parse(raw, str(_ROOT)), tree)


def begin(kitchen: Kitchen, sandbox: Sandbox, objects: Path) -> None:
    """Lay out the directories that makefiles install into, below `objects`: `layout.OBJ` in the sandbox."""
    root = objects / image.ROOT
    clear(objects)
    for file, below in _HIERARCHY.items():
        (root / below).mkdir(parents=True, exist_ok=True)
        argv: list[str | Path] = ["mtree", "-deU", "-f", SRC / "etc/mtree" / file, "-p", _ROOT / below]
        step.run(kitchen, sandbox, argv, "hierarchy")


def finish(objects: Path, target: Path) -> None:
    """Make `root/` and `install.mtree` in `target` of what was installed."""
    root = objects / image.ROOT
    _prune(root)
    (target / image.LOG).write_text(install.log(installed(objects)), errors="surrogateescape")
    shutil.move(root, target / image.ROOT)


def _prune(directory: Path) -> None:
    """Remove empty directories, and links: the hierarchy is the world's to make."""
    for path, names, files in os.walk(directory, topdown=False):
        for name in (*names, *files):
            if (link := Path(path, name)).is_symlink():
                link.unlink()
        if not any(Path(path).iterdir()):
            Path(path).rmdir()
