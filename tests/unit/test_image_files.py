"""What goes into images: templates, keys, libraries, and the file system they end up in."""

from __future__ import annotations

import base64
import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import pytest

from dfbuild.errors import BuildFailed, InfraError
from dfbuild.image import ext4, identity, libraries
from dfbuild.image.templates import images, render_tree
from dfbuild.workspace import Workspace

EPOCH = 1_700_000_000


# ── templates ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_templates_are_rendered_and_other_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hostname.j2").write_text("{{ hostname }}\n")
    (tmp_path / "etc/raw").write_bytes(b"{{ as it is }}\xff")
    assert render_tree(tmp_path, {"hostname": "x"}) == {"etc/hostname": b"x\n", "etc/raw": b"{{ as it is }}\xff"}
    with pytest.raises(jinja2.UndefinedError):
        render_tree(tmp_path, {})


def test_own_images_are_found_and_render_with_what_the_target_gives() -> None:
    files = render_tree(images("reference") / "root", {"hostname": "guest", "authorized_key": "ssh-ed25519 AAAA"})
    assert files["etc/hostname"] == b"guest\n"
    assert files["root/.ssh/authorized_keys"] == b"ssh-ed25519 AAAA dfbuild\n"
    with pytest.raises(InfraError, match="nonesuch"):
        images("nonesuch")


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_identity_is_made_once_and_private(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    found: list[identity.Identity] = []
    threads = [threading.Thread(target=lambda: found.append(identity.ensure(workspace, "x"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
    assert found[0].client_public != found[0].host_public
    assert [path.name for path in workspace.identities.iterdir()] == ["x"]
    for path in (found[0].client_key, found[0].host_key):
        assert path.stat().st_mode & 0o777 == 0o600
    assert workspace.identities.stat().st_mode & 0o077 == 0


def test_the_public_keys_belong_to_the_private_ones(tmp_path: Path) -> None:
    import paramiko

    made = identity.ensure(Workspace(tmp_path), "x")
    for private, public in ((made.client_key, made.client_public), (made.host_key, made.host_public)):
        key = paramiko.Ed25519Key.from_private_key_file(str(private))
        assert f"{key.get_name()} {key.get_base64()}" == public


def test_dropbears_form_of_a_key_holds_both_halves(tmp_path: Path) -> None:
    made = identity.ensure(Workspace(tmp_path), "x")
    data = identity.dropbear_key(made.host_key)
    (length,) = struct.unpack_from(">I", data)
    assert data[4 : 4 + length] == b"ssh-ed25519"
    (halves,) = struct.unpack_from(">I", data, 4 + length)
    assert halves == 64 and len(data) == 8 + length + 64
    assert data[-32:] == base64.b64decode(made.host_public.split()[1])[-32:]


# ── libraries ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_libraries_come_from_the_packages_and_never_from_the_host(tmp_path: Path) -> None:
    package = tmp_path / "usr/lib/x86_64-linux-gnu"
    package.mkdir(parents=True)
    source = tmp_path / "x.c"
    source.write_text("int deep(void) { return 1; }\nint main(void) { return deep(); }\n")

    def shared(name: str, *more: str) -> None:
        words = [
            "gcc-12",
            "-shared",
            "-fPIC",
            "-nostdlib",
            f"-Wl,-soname,{name}",
            "-o",
            package / name,
            source,
            *more,
        ]
        subprocess.run(words, check=True)

    shared("libdeep.so.1")
    shared("libnear.so.1", "-Wl,--no-as-needed", str(package / "libdeep.so.1"))
    (package / "libnear.so.1").rename(package / "libnear.so.1.2.3")
    (package / "libnear.so.1").symlink_to("libnear.so.1.2.3")
    program = tmp_path / "program"
    link = ["-Wl,--no-as-needed", package / "libnear.so.1.2.3", f"-Wl,-rpath-link,{package}"]
    subprocess.run(["gcc-12", "-nostdlib", "-pie", "-fPIE", "-e", "main", "-o", program, source, *link], check=True)

    with pytest.raises(BuildFailed, match="ld-linux"):
        libraries.closure([program], tmp_path)
    (tmp_path / "lib64").mkdir()
    loader = Path("/lib64/ld-linux-x86-64.so.2")
    (tmp_path / "lib64/ld-linux-x86-64.so.2").symlink_to(loader)
    with pytest.raises(BuildFailed, match="ld-linux"):  # a link out of the packages is none of theirs
        libraries.closure([program], tmp_path)
    (tmp_path / "lib64/ld-linux-x86-64.so.2").unlink()
    shutil.copyfile(loader, tmp_path / "lib64/ld-linux-x86-64.so.2")
    found = libraries.closure([program, source], tmp_path)
    assert {place: path.name for place, path in found.items()} == {
        "lib64/ld-linux-x86-64.so.2": "ld-linux-x86-64.so.2",
        "usr/lib/libnear.so.1": "libnear.so.1.2.3",
        "usr/lib/libdeep.so.1": "libdeep.so.1",
    }
    (package / "libdeep.so.1").unlink()
    with pytest.raises(BuildFailed, match=r"libdeep\.so\.1, which no package has"):
        libraries.closure([program], tmp_path)


# ── the file system ─────────────────────────────────────────────────────────────────────────────────────────────


def run(argv: Sequence[str | Path], environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        [str(word) for word in argv],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True,
    )  # fmt: skip
    return done.stdout if argv[0] == "debugfs" else ""


def write_tree(root: Path, names: Sequence[str]) -> Path:
    root.mkdir()
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (root / "link").symlink_to("nowhere")
    (root / "tool").write_text("x")
    (root / "tool").chmod(0o750)
    return root


def make(tree: Path, target: Path) -> Path:
    uuid = "0e0a3c5c-3f0e-4f0e-8e2d-4a5f6b7c8d9e"
    ext4.make(tree, target, size=64, uuid=uuid, label="test", epoch=EPOCH, run=run)
    return target


def test_the_same_tree_gives_the_same_file_system(tmp_path: Path) -> None:
    names = [f"dir{i % 3}/file{i}" for i in range(20)]
    trees = [write_tree(tmp_path / "a", names), write_tree(tmp_path / "b", names[::-1])]
    for path in trees[1].rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    made = [make(tree, tmp_path / f"{tree.name}.img") for tree in trees]
    assert made[0].read_bytes() == made[1].read_bytes()
    status = made[0].stat()
    assert status.st_size == 64 << 20 and status.st_blocks * 512 < 8 << 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.img", "b", "b.img"]


def test_everything_belongs_to_root_and_keeps_its_mode(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", ["dir/file"])
    if os.geteuid() == 0:
        os.chown(tree / "tool", 1234, 1234)
    image = make(tree, tmp_path / "image")
    for path, mode in (("/tool", "0750"), ("/dir/file", None), ("/dir", None), ("/", None)):
        shown = subprocess.run(["debugfs", "-R", f"stat {path}", image], capture_output=True, text=True, check=True)
        words = shown.stdout.split()
        assert words[words.index("User:") + 1] == words[words.index("Group:") + 1] == "0"
        if mode is not None:
            assert words[words.index("Mode:") + 1] == mode
        assert shown.stdout.count(f"{EPOCH:#x}") >= 3
    checked = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_names_that_debugfs_would_misread_are_refused(tmp_path: Path) -> None:
    for number, name in enumerate(["a b", 'q"q', "new\nline"]):
        with pytest.raises(BuildFailed, match="blank"):
            make(write_tree(tmp_path / f"tree{number}", [name]), tmp_path / f"image{number}")


def test_debugfs_complaints_fail_the_build(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", ["file"])

    def forgetful(argv: Sequence[str | Path], environment: Mapping[str, str]) -> str:
        if argv[0] == "mke2fs":
            (tree / "file").unlink()
            printed = run(argv, environment)
            (tree / "file").write_text("only seen by the second tool")
            return printed
        return run(argv, environment)

    with pytest.raises(BuildFailed, match="debugfs"):
        ext4.make(tree, tmp_path / "image", size=64, uuid="0e0a3c5c-3f0e-4f0e-8e2d-4a5f6b7c8d9e", label="t",
                  epoch=EPOCH, run=forgetful)  # fmt: skip
