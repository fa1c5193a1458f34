"""The command line has exactly the hardware asked for, and nothing that listens beyond this machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.errors import UsageError
from dfbuild.guest.argv import Paths, cpu, device, mac, option, qemu_argv
from dfbuild.guest.models import CONSOLES, DISKS, FIRMWARES, NICS, VIDEOS, family
from dfbuild.guest.protocol import GuestSpec
from dfbuild.model import Disk, Media, Shape

# Whatever a path may hold; the kernel of a path's text is any character but NUL and slash.
names = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)
paths = st.builds(lambda parts: Path("/", *parts), st.lists(names, min_size=1, max_size=3))
shapes = st.builds(
    Shape,
    name=names,
    sockets=st.integers(1, 4),
    cores=st.integers(1, 4),
    threads=st.integers(1, 2),
    memory=st.integers(16, 1 << 20),
    nx=st.booleans(),
    cpu=st.sampled_from(["", "qemu64", "pentium3"]),
    machine=st.sampled_from(["q35", "pc", "pc-i440fx-2.9", "pc-q35-7.2"]),
    disk=st.sampled_from(sorted(set(DISKS) - {"ide"})),
    nic=st.sampled_from(sorted(NICS)),
    console=st.sampled_from(sorted(CONSOLES)),
    spare_serials=st.integers(0, 3),
    video=st.sampled_from(sorted(VIDEOS)),
    firmware=st.sampled_from(sorted(FIRMWARES)),
)
disks = st.builds(Disk, paths, st.sampled_from(["qcow2", "raw"]))
medias = st.builds(
    Media,
    disks=st.lists(disks, max_size=4).map(tuple),
    cdroms=st.lists(paths, max_size=3).map(tuple),
    kernel=st.none() | paths,
    initrd=st.none() | paths,
    append=st.text(max_size=20),
)
specs = st.builds(
    GuestSpec,
    name=names,
    shape=shapes,
    media=medias,
    directory=paths,
    ssh_port=st.none() | st.integers(1, 65535),
    wire=st.booleans(),
)
accels = st.sampled_from(["kvm", "tcg"])


def values(line: list[str], flag: str) -> list[str]:
    return [line[i + 1] for i, word in enumerate(line) if word == flag]


def parsed(text: str) -> dict[str, str]:
    """QEMU's side of the syntax: keyval_parse() in util/keyval.c. The bare head is under an empty key."""
    fields = [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]
    return dict(field.split("=", 1) if "=" in field else ("", field) for field in fields)


def spec(shape: Shape | None = None, **more: object) -> GuestSpec:
    return GuestSpec("g", shape or Shape("up"), Media(**more), Path("/tmp/g"))  # type: ignore[arg-type]


@given(specs, accels)
def test_the_topology_is_the_shapes(spec: GuestSpec, accel: str) -> None:
    line = qemu_argv(spec, accel)
    (smp,), (memory,) = values(line, "-smp"), values(line, "-m")
    shape = spec.shape
    topology = {"sockets": shape.sockets, "cores": shape.cores, "threads": shape.threads}
    assert parsed(smp) == {
        key: str(n) for key, n in {"cpus": shape.cpus, "maxcpus": shape.cpus, **topology}.items()
    }
    assert memory == f"{shape.memory}M"
    assert values(line, "-accel") == [accel]
    assert parsed(values(line, "-machine")[0])[""] == shape.machine


@given(shapes, accels)
def test_nx_is_always_said(shape: Shape, accel: str) -> None:
    words = cpu(shape, accel).split(",")
    assert ("+nx" in words, "-nx" in words) == (shape.nx, not shape.nx)
    assert words[0] == (shape.cpu or {"kvm": "host", "tcg": "max"}[accel])


@given(specs, accels)
def test_nothing_listens_beyond_this_machine(spec: GuestSpec, accel: str) -> None:
    line = qemu_argv(spec, accel)
    # What the user named is the user's; all other words are ours.
    ours = [word for word in line if word not in (spec.name, spec.media.append)]
    assert not {"-vnc", "-spice", "-gdb", "-s", "-incoming", "-monitor", "-qmp", "-net", "-nic"} & set(ours)
    assert values(line, "-display") == ["none"] and values(line, "-vga") == ["none"]
    for backend in values(line, "-netdev"):
        fields = parsed(backend)
        if fields[""] == "user":
            assert re.fullmatch(rf"tcp:127\.0\.0\.1:0-:{spec.ssh_port}", fields["hostfwd"])
            assert fields["restrict"] == "on"
        else:
            assert fields[""] == "dgram" and {fields["local.type"], fields["remote.type"]} == {"unix"}
    chardevs = [parsed(chardev) for chardev in values(line, "-chardev")]
    kept = {"socket": {"path", "id"}, "null": {"id"}}
    assert all(set(chardev) - {""} == kept[chardev[""]] for chardev in chardevs)
    assert sum(chardev[""] == "null" for chardev in chardevs) == spec.shape.spare_serials
    assert len(values(line, "-netdev")) == (spec.ssh_port is not None) + spec.wire


@given(specs, accels)
def test_every_path_survives_qemus_quoting(spec: GuestSpec, accel: str) -> None:
    line = qemu_argv(spec, accel)
    where = Paths(spec.directory)
    chardevs = map(parsed, values(line, "-chardev"))
    sockets = {chardev["id"]: chardev["path"] for chardev in chardevs if "path" in chardev}
    assert sockets == {"qmp": str(where.qmp), "console": str(where.console)}
    nodes = {fields["node-name"]: fields for fields in map(parsed, values(line, "-blockdev"))}
    for number, disk in enumerate(spec.media.disks):
        fields = nodes.pop(f"disk{number}")
        assert fields["file.filename"] == str(where.overlay(number))
        assert fields["backing.file.filename"] == str(disk.path)
        assert fields["backing.driver"] == disk.format and fields["backing.read-only"] == "on"
        assert (fields["cache.no-flush"], fields["driver"]) == ("on", "qcow2")
    for number, path in enumerate(spec.media.cdroms):
        fields = nodes.pop(f"cdrom{number}")
        assert (fields["file.filename"], fields["driver"], fields["read-only"]) == (str(path), "raw", "on")
    assert set(nodes) == ({"code", "variables"} if spec.shape.firmware == "uefi" else set())
    assert values(line, "-name")[0] == option({"guest": spec.name, "debug-threads": True})
    assert parsed(values(line, "-name")[0])["guest"] == spec.name
    if spec.media.kernel is not None:
        assert str(spec.media.kernel) in values(line, "-kernel")


@given(specs, accels)
def test_firmware_is_in_flash_that_no_guest_can_change(spec: GuestSpec, accel: str) -> None:
    line = qemu_argv(spec, accel)
    machine = parsed(values(line, "-machine")[0])
    nodes = {fields["node-name"]: fields for fields in map(parsed, values(line, "-blockdev"))}
    chips = {key: node for key, node in machine.items() if key.startswith("pflash")}
    model = FIRMWARES[spec.shape.firmware]
    if model is None:
        assert not chips
        return
    code, variables = nodes[chips.pop("pflash0")], nodes[chips.pop("pflash1")]
    assert not chips
    assert (code["file.filename"], code["read-only"]) == (str(model.code), "on")
    assert variables["file.filename"] == str(Paths(spec.directory, spec.kept).variables)
    assert (variables["backing.file.filename"], variables["backing.read-only"]) == (str(model.variables), "on")


def test_spare_serial_ports_come_after_the_consoles() -> None:
    line = qemu_argv(spec(Shape("x", spare_serials=2)), "tcg")
    ports = [parsed(value) for value in values(line, "-device") if parsed(value)[""] == "isa-serial"]
    assert [port["chardev"] for port in ports] == ["console", "spare0", "spare1"]


@given(specs, accels)
def test_a_console_can_be_inherited(spec: GuestSpec, accel: str) -> None:
    own, inherited = (qemu_argv(spec, accel, console) for console in (None, 7))
    differing = [word for word, other in zip(inherited, own, strict=True) if word != other]
    assert [parsed(word)["fd"] for word in differing] == ["7"]


@given(specs, accels)
def test_no_device_brings_a_boot_rom(spec: GuestSpec, accel: str) -> None:
    models = set(NICS.values())
    nics = [parsed(word) for word in values(qemu_argv(spec, accel), "-device") if parsed(word)[""] in models]
    assert all(nic["romfile"] == "" for nic in nics)
    assert len({nic["mac"] for nic in nics}) == len(nics) == (spec.ssh_port is not None) + spec.wire


@given(st.lists(names, min_size=2, max_size=6, unique=True))
def test_macs_differ_between_guests_and_are_unicast(guests: list[str]) -> None:
    macs = [mac(guest, number) for guest in guests for number in (0, 1)]
    assert len(set(macs)) == len(macs)
    assert all(mac.startswith("52:54:00:") for mac in macs)


@given(st.dictionaries(st.from_regex(r"[a-z-]{1,8}", fullmatch=True), st.text(max_size=20), min_size=1))
def test_options_come_back_as_they_went(fields: dict[str, str]) -> None:
    texts = {key: text.replace("\0", "") for key, text in fields.items()}
    assert parsed(option(texts)) == texts


def test_nesting_becomes_dots_and_booleans_words() -> None:
    assert option({"a": {"b": {"c": "x,y"}}, "on": True, "n": 3}, "head") == "head,a.b.c=x,,y,on=on,n=3"
    assert device("nvme", {"serial": "a"}) == ["-device", "nvme,serial=a"]


def test_the_sandbox_of_qemu_is_on() -> None:
    (sandbox,) = values(qemu_argv(spec(), "tcg"), "-sandbox")
    assert parsed(sandbox) == {
        "": "on", "obsolete": "deny", "elevateprivileges": "deny", "spawn": "deny", "resourcecontrol": "deny"
    }  # fmt: skip


def test_the_users_own_words_come_last() -> None:
    line = qemu_argv(GuestSpec("g", Shape("up"), Media(), Path("/tmp/g"), extra=("-d", "int")), "tcg")
    assert line[-2:] == ["-d", "int"]


def test_two_ide_disks_share_a_channel() -> None:
    disks = tuple(Disk(Path(f"/d{n}")) for n in range(3))
    line = qemu_argv(spec(Shape("old", machine="pc", disk="ide"), disks=disks), "tcg")
    places = [(p["bus"], p["unit"]) for p in map(parsed, values(line, "-device")) if p[""] == "ide-hd"]
    assert places == [("ide.0", "0"), ("ide.0", "1"), ("ide.1", "0")]


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (Shape("x", disk="virtio-blj"), "did you mean 'virtio-blk'"),
        (Shape("x", nic="e100"), "did you mean 'e1000'"),
        (Shape("x", machine="microvm"), "machine"),
        (Shape("x", console="vga"), "console"),
        (Shape("x", firmware="uefl"), "did you mean 'uefi'"),
        (Shape("x", video="vga"), "video"),
        (Shape("x", disk="ide"), "has no ide disks"),
    ],
)
def test_what_cannot_be_is_refused_with_a_hint(shape: Shape, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        qemu_argv(spec(shape, disks=(Disk(Path("/d")),)), "tcg")
    assert caught.value.hint


def test_more_disks_than_the_controller_carries() -> None:
    disks = tuple(Disk(Path(f"/d{n}")) for n in range(7))
    with pytest.raises(UsageError, match="carries 6"):
        qemu_argv(spec(Shape("x", disk="ahci"), disks=disks), "tcg")


def test_the_first_cd_is_booted_before_disks_and_on_a_controller_of_its_own() -> None:
    media = Media(disks=(Disk(Path("/d")),), cdroms=(Path("/live.iso"), Path("/seed.iso")))
    line = qemu_argv(GuestSpec("g", Shape("x", disk="ahci"), media, Path("/tmp/g")), "tcg")
    devices = list(map(parsed, values(line, "-device")))
    drives = [(one["drive"], one["bus"], one.get("bootindex")) for one in devices if one[""] == "ide-cd"]
    assert drives == [("cdrom0", "cdroms.0", "0"), ("cdrom1", "cdroms.1", None)]
    assert [one["id"] for one in devices if one[""] == "ich9-ahci"] == ["disks", "cdroms"]
    assert [one["bootindex"] for one in devices if one[""] == "ide-hd"] == ["1"]
    without = qemu_argv(GuestSpec("g", Shape("x", disk="ahci"), Media(disks=media.disks), Path("/tmp/g")), "tcg")
    assert line[: len(without)] == without, "all else keeps its place on the bus"


def test_more_cds_than_drives() -> None:
    media = Media(cdroms=tuple(Path(f"/{n}.iso") for n in range(7)))
    with pytest.raises(UsageError, match="6 drives at most"):
        qemu_argv(GuestSpec("g", Shape("x"), media, Path("/tmp/g")), "tcg")


@pytest.mark.parametrize(("machine", "chipset"), [("pc", "pc"), ("pc-q35-7.2", "q35"), ("pc-i440fx-2.9", "pc")])
def test_versioned_machines_belong_to_their_family(machine: str, chipset: str) -> None:
    assert family(machine) == chipset
