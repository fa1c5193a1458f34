"""What installs itself beside the world: a part of an image, out of an installation by the tree's own makefiles."""

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

DESTINATION = {"DESTDIR": str(_ROOT), "METALOG": str(_RAW_LOG)}
"""For the environment of what installs."""


def begin(kitchen: Kitchen, sandbox: Sandbox, objects: Path) -> None:
    """Lay out the directories that makefiles install into, below `objects`: `layout.OBJ` in the sandbox."""
    root = objects / image.ROOT
    shutil.rmtree(root, ignore_errors=True)
    (objects / _RAW_LOG.name).unlink(missing_ok=True)
    for file, below in _HIERARCHY.items():
        (root / below).mkdir(parents=True, exist_ok=True)
        argv: list[str | Path] = ["mtree", "-deU", "-f", SRC / "etc/mtree" / file, "-p", _ROOT / below]
        step.run(kitchen, sandbox, argv, "hierarchy")


def finish(objects: Path, target: Path) -> None:
    """Make `root/` and `install.mtree` in `target` of what was installed."""
    root = objects / image.ROOT
    entries = install.parse((objects / _RAW_LOG.name).read_text(), str(_ROOT))
    _prune(root)
    log = install.log(install.merge(entries, install.survey(root)))
    (target / image.LOG).write_text(log)
    shutil.move(root, target / image.ROOT)


def _prune(directory: Path) -> None:
    """Remove empty directories, and links: the hierarchy is the world's to make."""
    for path, names, files in os.walk(directory, topdown=False):
        for name in (*names, *files):
            if (link := Path(path, name)).is_symlink():
                link.unlink()
        if not any(Path(path).iterdir()):
            Path(path).rmdir()
