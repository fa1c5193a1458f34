"""Parts of an image, made of what the tree's own makefiles install, or by ourselves, and laid over one another.

A *part* is an artefact with a directory `root/`, as it lies at `/` in the guest, and where needed `install.mtree`,
the log of owners, modes and flags that its installation would have set as root (`image.manifest.parse_log`).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dfbuild.build import step
from dfbuild.build.dragonfly import disks, metalog
from dfbuild.build.dragonfly.layout import OBJ, SRC
from dfbuild.build.recipe import Kitchen
from dfbuild.errors import BuildFailed
from dfbuild.image.manifest import Names
from dfbuild.sandbox import Sandbox
from dfbuild.workspace import write_among

ROOT, LOG = "root", "install.mtree"

_ROOT = OBJ / ROOT
_RAW_LOG = OBJ / "metalog.log"
_HIERARCHY = {"BSD.root.dist": "", "BSD.usr.dist": "usr"}

DESTINATION = {"DESTDIR": str(_ROOT), "METALOG": str(_RAW_LOG), "_SHLIBDIRPREFIX": ""}
"""For the environment of what installs. Links to shared libraries lead to where these will be in the guest."""


def clear(objects: Path) -> None:
    """Remove what an installation before this one left below `objects`: `layout.OBJ` in the sandbox."""
    shutil.rmtree(objects / ROOT, ignore_errors=True)
    (objects / _RAW_LOG.name).unlink(missing_ok=True)


def installed(objects: Path) -> dict[str, dict[str, str]]:
    """By path, what was said of everything that is there.

    Raises `BuildFailed` for a log that makes no sense, and for links into the object tree.
    """
    raw = (objects / _RAW_LOG.name).read_text(errors="surrogateescape")
    tree = metalog.survey(objects / ROOT)
    metalog.settled(tree, str(OBJ))
    return metalog.merge(metalog.parse(raw, str(_ROOT)), tree)


def begin(kitchen: Kitchen, sandbox: Sandbox, objects: Path) -> None:
    """Lay out the directories that makefiles install into, below `objects`: `layout.OBJ` in the sandbox."""
    root = objects / ROOT
    clear(objects)
    for file, below in _HIERARCHY.items():
        (root / below).mkdir(parents=True, exist_ok=True)
        argv: list[str | Path] = ["mtree", "-deU", "-f", SRC / "etc/mtree" / file, "-p", _ROOT / below]
        step.run(kitchen, sandbox, argv, "hierarchy")


def finish(objects: Path, target: Path) -> None:
    """Make `root/` and `install.mtree` in `target` of what was installed."""
    root = objects / ROOT
    _prune(root)
    (target / LOG).write_text(metalog.log(installed(objects)), errors="surrogateescape")
    shutil.move(root, target / ROOT)


def _prune(directory: Path) -> None:
    """Remove empty directories, and links: the hierarchy is the world's to make."""
    for path, names, files in os.walk(directory, topdown=False):
        for name in (*names, *files):
            if (link := Path(path, name)).is_symlink():
                link.unlink()
        if not any(Path(path).iterdir()):
            Path(path).rmdir()


def lay(part: Path, tree: Path) -> str:
    """Lay a part over `tree`, by hard links, and return its log. What is there under a name already goes.

    Raises `BuildFailed` for a part without `root/`, or with a directory where another one has a file.
    """
    root = part / ROOT
    if not root.is_dir():
        raise BuildFailed(f"nothing to install in {part}", component="image")
    tree.mkdir(exist_ok=True)
    for directory, names, files in os.walk(root):
        here = tree / Path(directory).relative_to(root)
        for name in names:
            source, target = Path(directory, name), here / name
            if source.is_symlink():
                _link(source, target)
            elif target.is_symlink() or (target.exists() and not target.is_dir()):
                raise BuildFailed(f"{target.relative_to(tree)} is a file and a directory", component="image")
            else:
                target.mkdir(exist_ok=True)
        for name in files:
            _link(Path(directory, name), here / name)
    log = part / LOG
    return log.read_text(encoding="utf-8", errors="surrogateescape") if log.is_file() else ""


def replace(tree: Path, name: str, content: bytes) -> None:
    """Write the file `name` of `tree` anew: what was there may be a part's own."""
    write_among(tree, tree / name, content)
    (tree / name).chmod(0o644)


def _link(source: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        raise BuildFailed(f"{target} is a directory and a file", component="image")
    target.unlink(missing_ok=True)
    os.link(source, target, follow_symlinks=False)


def names(tree: Path) -> Names:
    """The numbers of users and groups that `tree` itself has."""
    texts = (disks.read(tree, name).decode("latin-1") for name in ("etc/master.passwd", "etc/group"))
    return Names.parse(*texts)
