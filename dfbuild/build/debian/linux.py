"""The kernel: the ELF file in a Debian package's bzImage, which QEMU starts by its PVH note, and some modules."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dfbuild.build import step
from dfbuild.build.debian import apt
from dfbuild.build.recipe import Kitchen, Recipe
from dfbuild.errors import BuildFailed
from dfbuild.model import StepKind
from dfbuild.sandbox import Sandbox

_IN_PYTHON = {
    b"\x1f\x8b": gzip.decompress,
    b"\xfd7zXZ\0": lzma.decompress,
    b"\x5d\0\0": lzma.decompress,
    b"BZh": bz2.decompress,
}
_BY_TOOL = {b"\x02\x21\x4c\x18": "lz4", b"\x28\xb5\x2f\xfd": "zstd"}


def recipe(fetched: Recipe, modules: Sequence[str], fault_modules: Sequence[str] = ()) -> Recipe:
    """The kernel and its modules.

    `vmlinuz` as in the package and the `vmlinux` in it; `modules/NN-name.ko` in the order of their dependencies;
    `modules.fault` likewise.
    """

    def make(kitchen: Kitchen) -> Mapping[str, Any]:
        tree = kitchen.directory / "tree"
        apt.unpack(kitchen, kitchen.needs[0], tree)
        image = _only(tree.glob("boot/vmlinuz-*"), "kernel image")
        release = image.name.removeprefix("vmlinuz-")
        kitchen.say(f"taking apart Linux {release}")
        # The payload of lz4 and zstd ends with its unpacked size, which only gzip expects there.
        shutil.copyfile(image, kitchen.directory / "vmlinuz")
        packed = payload(image.read_bytes())
        vmlinux = _decompress(kitchen, packed if packed.startswith(b"\x1f\x8b") else packed[:-4])
        if not vmlinux.startswith(b"\x7fELF"):
            raise BuildFailed(f"the kernel in {image.name} is no ELF file", component="vmlinux")
        (kitchen.directory / "vmlinux").write_bytes(vmlinux)
        found = _only((d for d in tree.glob("**/lib/modules/*") if d.name == release), "module directory")
        loaded = _install(kitchen, found, modules, kitchen.directory / "modules", ())
        _install(kitchen, found, fault_modules, kitchen.directory / "modules.fault", loaded)
        shutil.rmtree(tree)
        return {"release": release, "modules": loaded}

    inputs = {"files": ["vmlinuz", "vmlinux"], "modules": list(modules), "fault_modules": list(fault_modules)}
    return Recipe(StepKind.KERNEL, "linux", inputs, make, needs=(fetched,), minutes=5)


def payload(image: bytes) -> bytes:
    """The compressed kernel in a bzImage (Linux, Documentation/x86/boot.rst: `payload_offset`, protocol 2.08)."""
    if len(image) < 0x250 or image[0x202:0x206] != b"HdrS" or struct.unpack_from("<H", image, 0x206)[0] < 0x208:
        raise BuildFailed("the kernel image is no bzImage of boot protocol 2.08 or later", component="vmlinuz")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    if not 0 < length <= len(image) - start:
        raise BuildFailed("the kernel image ends before its payload does", component="vmlinuz")
    return image[start : start + length]


def _decompress(kitchen: Kitchen, data: bytes) -> bytes:
    """`data` unpacked, by what it begins with; an ELF file is taken as it is."""
    if data.startswith(b"\x7fELF"):
        return data
    for magic, decompress in _IN_PYTHON.items():
        if data.startswith(magic):
            return decompress(data)
    for magic, tool in _BY_TOOL.items():
        if data.startswith(magic):
            packed, plain = kitchen.directory / "packed", kitchen.directory / "plain"
            packed.write_bytes(data)
            output = ["-o", plain] if tool == "zstd" else [plain]
            sandbox = Sandbox(writable=(kitchen.directory,))
            step.run(kitchen, sandbox, [tool, "-dqf", packed, *output], "decompress")
            unpacked = plain.read_bytes()
            packed.unlink()
            plain.unlink()
            return unpacked
    raise BuildFailed(f"no way to decompress what begins with {data[:4].hex()}", component="decompress")


def load_order(dependencies: Mapping[str, Sequence[str]], wanted: Iterable[str]) -> list[str]:
    """`wanted` modules and all they depend on, each after what it needs."""
    order: list[str] = []

    def visit(module: str) -> None:
        for needed in dependencies.get(module, ()):
            if needed not in order:
                visit(needed)
        if module not in order:
            order.append(module)

    for module in wanted:
        visit(module)
    return order


def module_name(path: str) -> str:
    """The name that the kernel knows a module file by."""
    return Path(path).name.split(".ko")[0].replace("-", "_")


def _install(
    kitchen: Kitchen, tree: Path, wanted: Sequence[str], target: Path, present: Sequence[str]
) -> list[str]:
    """Put `wanted` modules with their dependencies into `target`, numbered; skips those built in or `present`."""
    files = {module_name(path.name): path for path in sorted(tree.rglob("*.ko*"))}
    builtin = {module_name(line) for line in (tree / "modules.builtin").read_text().split()}
    contents: dict[str, bytes] = {}
    dependencies: dict[str, list[str]] = {}

    def read(name: str) -> None:
        if name in builtin or name in contents:
            return
        if name not in files:
            raise BuildFailed(f"the kernel package has no module {name}", component="modules")
        contents[name] = _decompress(kitchen, files[name].read_bytes())
        dependencies[name] = depends(contents[name])
        for needed in dependencies[name]:
            read(needed)

    for name in wanted:
        read(name)
    order = [name for name in load_order(dependencies, wanted) if name not in builtin and name not in present]
    target.mkdir()
    for number, name in enumerate(order):
        (target / f"{number:02}-{name}.ko").write_bytes(contents[name])
    return order


def depends(module: bytes) -> list[str]:
    """The modules that a module file says it depends on (`depends=` in its `.modinfo`)."""
    at = module.find(b"\0depends=")
    if at < 0:
        return []
    names = module[at + 9 : module.index(b"\0", at + 9)].decode(errors="replace")
    return [name.replace("-", "_") for name in names.split(",") if name]


def _only(found: Iterable[Path], what: str) -> Path:
    paths = list(found)
    if len(paths) != 1:
        raise BuildFailed(f"{len(paths)} times a {what} in the package, not once", component="kernel package")
    return paths[0]
