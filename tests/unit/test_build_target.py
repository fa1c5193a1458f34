"""The reference target's decisions, and that its world is compiled to the same bytes wherever that happens."""

from __future__ import annotations

import dataclasses
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.build.debian import apt, linux
from dfbuild.build.recipe import Artefact
from dfbuild.build.reference import Target, data, world
from dfbuild.build.store import ArtefactStore, build_all
from dfbuild.build.targets import target
from dfbuild.deadline import Deadline
from dfbuild.errors import BuildFailed, UsageError
from dfbuild.image.templates import images
from dfbuild.model import Cell, Shape, StepKind, Variant
from dfbuild.releases import load
from dfbuild.workspace import Workspace

REFERENCE = load("reference")
CELL = Cell(Variant("reference", "gcc-12", "on", "smp"), Shape("up"))

# As printed by apt 2.6 for a meta-package, a package with alternatives and one behind a virtual package.
DEPENDS = """\
linux-image-cloud-amd64
  Depends: linux-image-6.1.0-56-cloud-amd64
linux-image-6.1.0-56-cloud-amd64
  PreDepends: libkernel
  Depends: kmod
 |Depends: initramfs-tools
  Depends: <linux-initramfs-tool>
    dracut
    initramfs-tools
kmod
  Depends: libc6
"""


def test_dependencies_are_read_from_apts_own_words() -> None:
    assert apt.dependencies(DEPENDS) == {
        "linux-image-cloud-amd64": ["linux-image-6.1.0-56-cloud-amd64"],
        "linux-image-6.1.0-56-cloud-amd64": ["libkernel", "kmod", "initramfs-tools"],
        "kmod": ["libc6"],
    }


def test_only_followed_dependencies_come_along() -> None:
    found = apt.closure(apt.dependencies(DEPENDS), ["linux-image-cloud-amd64"], ["linux-image-"])
    assert found == {"linux-image-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64"}
    assert apt.closure({"a": ["b"], "b": ["a"]}, ["a"], [""]) == {"a", "b"}


def bzimage(payload: bytes, *, setup_sectors: int = 4, version: int = 0x20F, cut: int = 0) -> bytes:
    """The parts of a bzImage that matter: Linux, Documentation/x86/boot.rst."""
    header = bytearray((setup_sectors + 1) * 512)
    header[0x1F1] = 0 if setup_sectors == 4 else setup_sectors
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", header, 0x206, version)
    struct.pack_into("<II", header, 0x248, 100, len(payload))
    image = bytes(header) + bytes(100) + payload + b"behind it"
    return image[: len(image) - cut]


@given(st.binary(min_size=1, max_size=99), st.integers(1, 40))
def test_the_payload_of_a_kernel_image_is_found(payload: bytes, sectors: int) -> None:
    assert linux.payload(bzimage(payload, setup_sectors=sectors)) == payload


@pytest.mark.parametrize(
    "image",
    [b"", bytes(2000), bzimage(b"x", version=0x207), bzimage(b""), bzimage(b"payload", cut=12)],
    ids=["empty", "zeros", "old", "without payload", "cut"],
)
def test_what_is_no_kernel_image_fails(image: bytes) -> None:
    with pytest.raises(BuildFailed):
        linux.payload(image)


@given(st.lists(st.lists(st.integers(0, 30), max_size=4), min_size=1, max_size=30), st.data())
def test_modules_load_after_what_they_need(needs: list[list[int]], draw: st.DataObject) -> None:
    graph = {str(i): [str(j) for j in needed if j < i] for i, needed in enumerate(needs)}
    wanted = draw.draw(st.lists(st.sampled_from(sorted(graph))))
    order = linux.load_order(graph, wanted)
    assert len(order) == len(set(order))
    assert set(wanted) <= set(order)
    for module in order:
        assert all(order.index(needed) < order.index(module) for needed in graph[module])


def test_a_module_says_what_it_needs() -> None:
    modinfo = b"\0license=GPL\0depends=virtio,virtio-ring\0name=virtio_pci\0"
    assert linux.depends(b"\x7fELF" + modinfo) == ["virtio", "virtio_ring"]
    assert linux.depends(b"\0depends=\0") == linux.depends(b"\x7fELF") == []
    assert linux.module_name("kernel/drivers/virtio/virtio-pci.ko.xz") == "virtio_pci"


def test_the_target_is_found_by_name() -> None:
    assert isinstance(target(REFERENCE), Target)
    with pytest.raises(UsageError, match="no target"):
        target(REFERENCE.model_copy(update={"target": "nonesuch"}))


def test_devices_without_a_driver_are_refused_with_the_reason() -> None:
    assert Target().refuse(REFERENCE, CELL) is None
    for change in ({"disk": "ide"}, {"nic": "e1000"}, {"console": "vga"}):
        cell = dataclasses.replace(CELL, shape=dataclasses.replace(CELL.shape, **change))  # type: ignore[arg-type]
        refusal = Target().refuse(REFERENCE, cell)
        assert refusal is not None and refusal.cell == cell
        assert next(iter(change.values())) in refusal.reason


def test_media_follow_the_shapes_console_and_the_kernels_words(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    image = Artefact(StepKind.IMAGE, "x", "key", tmp_path / "image")
    quick = REFERENCE.kernels["smp"].model_copy(update={"append": "maxcpus=1"})
    release = REFERENCE.model_copy(update={"kernels": {"smp": quick}})
    for console, device in (("serial", "ttyS0"), ("virtio", "hvc0")):
        cell = dataclasses.replace(CELL, shape=dataclasses.replace(CELL.shape, console=console))
        media = Target().media(release, cell, image, workspace)
        assert f"console={device}" in media.append.split()
        assert media.append.endswith(" maxcpus=1")
        assert all(path is not None and path.parent == image.path for path in (media.kernel, media.initrd))
        assert media.login.key is not None and media.login.key.stat().st_mode & 0o777 == 0o600
        assert media.login.host_key.startswith("ssh-ed25519 AAAA")


@pytest.mark.parametrize(
    ("change", "kernel"),
    [({}, "vmlinux"), ({"firmware": "uefi"}, "vmlinuz"), ({"hypervisor": "xen-hvm"}, "vmlinuz")],
)
def test_who_starts_the_kernel_decides_its_form(change: dict[str, str], kernel: str, tmp_path: Path) -> None:
    cell = dataclasses.replace(CELL, shape=dataclasses.replace(CELL.shape, **change))  # type: ignore[arg-type]
    image = Artefact(StepKind.IMAGE, "x", "key", tmp_path / "image")
    assert Target().media(REFERENCE, cell, image, Workspace(tmp_path)).kernel == image.path / kernel


SOURCES = {
    "one.c": b'#include "common.h"\nint main(void) { return report(__FILE__); }\n',
    "common.h": b"#include <stdio.h>\nstatic int report(const char *w) { char b[9]; return sprintf(b, w) > 9; }\n",
}


def build_world(root: Path, cell: Cell, sources: dict[str, bytes]) -> Artefact:
    store = ArtefactStore(Workspace(root))
    return build_all(world.recipe(REFERENCE, cell.variant, sources), store, Deadline.after(120), print)


@pytest.mark.parametrize("toolchain", list(REFERENCE.toolchains))
def test_the_same_world_is_made_of_the_same_bytes_anywhere(tmp_path: Path, toolchain: str) -> None:
    if shutil.which(REFERENCE.toolchains[toolchain].cc) is None:
        pytest.skip(f"{toolchain} is not installed")
    cell = dataclasses.replace(CELL, variant=dataclasses.replace(CELL.variant, toolchain=toolchain))
    made = [build_world(tmp_path / place, cell, SOURCES) for place in ("here", "there/and/deeper")]
    assert made[0].key == made[1].key
    for name in ("objects/one.o", "programs/one"):
        contents = [(artefact.path / name).read_bytes() for artefact in made]
        assert contents[0] == contents[1]
        assert str(tmp_path).encode() not in contents[0]
    assert made[0].facts["protector"]["objects"] == 1


def test_sources_flags_and_compiler_decide_the_key() -> None:
    def key(sources: dict[str, bytes] | None = None, **change: str) -> str:
        return world.recipe(REFERENCE, dataclasses.replace(CELL.variant, **change), sources or SOURCES).key

    keys = {
        key(),
        key({**SOURCES, "common.h": b""}),
        key({**SOURCES, "two.c": b""}),
        key(toolchain="clang-14"),
        key(stack_protector="off"),
    }
    assert len(keys) == 5


def test_a_source_that_does_not_compile_names_itself(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed) as caught:
        build_world(tmp_path, CELL, {**SOURCES, "broken.c": b"int main(void) { return nonsense; }\n"})
    assert caught.value.component == "broken"
    assert "nonsense" in caught.value.tail
    assert caught.value.log is not None and caught.value.log.name == "broken.log"


def test_a_source_that_dodges_the_protector_fails_the_build(tmp_path: Path) -> None:
    dodge = b'#define BARE __attribute__((optimize("no-stack-protector")))\nBARE int main(void) { return 0; }\n'
    with pytest.raises(BuildFailed, match=r"dodge\.o has no stack protector"):
        build_world(tmp_path, CELL, {"dodge.c": dodge})


def flood_line(number: int) -> bytes:
    """Line `number` of the flood, as images/reference/faults.h documents it."""
    return b"flood %08d " % number + bytes(33 + (number * 7 + i * 13) % 94 for i in range(83)) + b"\r\n"


def test_the_flood_is_what_its_documentation_says(tmp_path: Path) -> None:
    lines = 3000  # more than a buffer, and not a multiple of one
    program = tmp_path / "flood"
    main = tmp_path / "main.c"
    main.write_text(
        '#define FLOOD_LINES 3000U\n#include "faults.h"\nint main(void) { misbehave("flood"); return 0; }\n'
    )
    faults = (images("reference") / "faults.h").read_text()
    assert faults.count("#define FLOOD_LINES 2000000U") == 1
    (tmp_path / "faults.h").write_text(faults.replace("#define FLOOD_LINES 2000000U", "//"))
    subprocess.run(["gcc-12", "-O1", "-o", program, main], check=True)
    # `say` writes to standard error, the flood to standard output: one console in the guest.
    done = subprocess.run([program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    expected = b"".join(flood_line(n) for n in range(lines))
    assert {len(flood_line(n)) for n in range(200)} == {100}
    assert done.stdout == b"flood begins\n" + expected + b"flood ends 3000 lines 300000 bytes\n"


def test_the_build_table_is_valid_and_strict() -> None:
    build = data.of(REFERENCE)
    assert build.disk_size >= 400
    with pytest.raises(UsageError, match=r"reference\.toml:\d+: build\.modlues: unknown key"):
        data.of(REFERENCE.model_copy(update={"build": {**REFERENCE.build, "modlues": []}}))
