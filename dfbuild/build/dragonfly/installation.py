"""`make installworld distribution` of a world that was built, and what of it the makefiles name is there."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from dfbuild.build import step
from dfbuild.build.dragonfly import archives, coverage, metalog, part, within
from dfbuild.build.dragonfly.components import INSTALL_FLAGS, Site
from dfbuild.build.dragonfly.layout import OBJ, SRC
from dfbuild.errors import BuildFailed
from dfbuild.workspace import write_among

# Device nodes are the image's; and the makefile names programs of the system that it runs on.
_DISTRIBUTION_FLAGS = ("-DNO_MAKEDEV_RUN", "MAKEWHATIS=makewhatis")


def install_world(site: Site, epoch: int) -> dict[str, Any]:
    """Install into `root/` of the kitchen's directory, with its log; returns how many files, and the coverage.

    Archives are dated `epoch`. Raises `BuildFailed` for what can't be installed, or compared.
    """
    kitchen, root = site.kitchen, site.objects / part.ROOT
    part.clear(site.objects)
    for below in ("", "etc", "usr/include", "var"):
        (root / below).mkdir(parents=True, exist_ok=True)
    kitchen.say("directories")
    _make(site, "etc", "distrib-dirs", "install hierarchy")
    not_installed: dict[str, BuildFailed] = {}
    # One after the other: some add to files of others, and in what order shows.
    for count, name in enumerate(site.components, 1):
        if name in site.failed:
            continue
        if count % 100 == 0:
            kitchen.say(f"installing: {count} of {len(site.components)} components, now at {name}")
        try:
            _make(site, name, "install", f"install {name}", *INSTALL_FLAGS)
        except BuildFailed as error:
            site.failed[name] = not_installed[name] = error
            site.judge()
    kitchen.say("distribution")
    _make(site, "etc", "distribution", "install distribution", *_DISTRIBUTION_FLAGS)
    facts = _coverage(site, root)
    archives.undate(root, epoch)
    merged = part.installed(site.objects)
    (kitchen.directory / part.LOG).write_text(metalog.log(merged), errors="surrogateescape")
    shutil.move(root, kitchen.directory / part.ROOT)
    return {"files": len(merged), **facts, "not installed": {name: site.exempt[name] for name in not_installed}}


def _make(site: Site, directory: str, target: str, component: str, *flags: str) -> None:
    within.make(
        site.kitchen, site.sandbox, directory, (target,), flags=flags, variables=part.DESTINATION,
        component=component,
    )  # fmt: skip


def _coverage(site: Site, root: Path) -> dict[str, Any]:
    """What `make -n install` of every component would install, against what is below `root`."""
    kitchen, destination = site.kitchen, part.DESTINATION["DESTDIR"]
    kitchen.say("comparing with what the makefiles name")
    variables = {"DESTDIR": destination}
    written = kitchen.directory / "told"
    told: set[str] = set()
    unasked: set[str] = set()

    def one(name: str) -> None:
        script = f"coverage-{name.replace('/', '-')}.sh"
        out = site.output(["sh", "-c", coverage.DRY_RUN, "sh", name], "", f"coverage {name}", variables)
        text = coverage.script(out, f"{site.places.world}{SRC}")
        write_among(site.objects, site.objects / script, text.encode(errors="surrogateescape"))
        unasked.update(coverage.unasked(out))
        inside = dataclasses.replace(
            site.at("", variables),
            mounts=tuple(dataclasses.replace(mount, writable=False) for mount in site.sandbox.mounts),
            writable=(written,),
        )
        said = step.output(kitchen, inside, ["sh", OBJ / script], f"told {name}")
        told.update(coverage.told(said, destination))

    written.mkdir()
    site.each("comparing", one, site.components)
    written.rmdir()
    site.judge()
    return {**coverage.compare(told, metalog.survey(root), site.exempt), "unasked": sorted(unasked)}
