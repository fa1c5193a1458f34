"""Kernel configurations are derived, and nothing gets into them that is no option."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild import releases
from dfbuild.build.dragonfly import data, kernconf, kernel
from dfbuild.errors import UsageError
from dfbuild.model import Variant
from dfbuild.releases.schema import Kernel
from dfbuild.source import Tree
from dfbuild.source.hashes import Hashes

MINE = Variant("1.2", "gcc34", "on", "mine")
BASE = """\
machine\t\ti386
cpu\t\tI386_CPU
cpu\t\tI686_CPU
ident\t\tGENERIC
makeoptions\tDEBUG=-g\t#with symbols
options \tHZ=100\t\t# the clock
options \tHZ_MORE
options \tINET\t\t#InterNETworking
#options \tSMP
device\t\tsio0\tat isa? port IO_COM1 flags 0x10 irq 4
"""


def lines(text: str) -> list[str]:
    """What config(8) reads: words by line, without comments."""
    return [
        " ".join(line.partition("#")[0].split()) for line in text.splitlines() if line.partition("#")[0].strip()
    ]


def derived(kernel: Kernel, **makeoptions: str) -> list[str]:
    return lines(kernconf.derive(BASE, "TEST", kernel, makeoptions))


def test_what_is_asked_replaces_what_was_there() -> None:
    kernel = Kernel(options={"SMP": "", "HZ": "1000"}, without=("cpu I386_CPU",))
    assert derived(kernel, DEBUG="-g", CONF_CFLAGS="-fstack-protector -O2") == [
        "ident TEST",
        "machine i386",
        "cpu I686_CPU",
        "options HZ_MORE",
        "options INET",
        "device sio0 at isa? port IO_COM1 flags 0x10 irq 4",
        "options SMP",
        "options HZ=1000",
        'makeoptions DEBUG="-g"',
        'makeoptions CONF_CFLAGS="-fstack-protector -O2"',
    ]


def test_what_stands_in_quotes_is_replaced_too() -> None:
    base = 'machine i386\noptions "COMPAT_43"\noptions "HZ=100"\nmakeoptions CONF_CFLAGS="-O"\n'
    kernel = Kernel(options={"HZ": "1000"}, without=("options COMPAT_43",))
    assert lines(kernconf.derive(base, "TEST", kernel, {"CONF_CFLAGS": "-O2"})) == [
        "ident TEST", "machine i386", "options HZ=1000", 'makeoptions CONF_CFLAGS="-O2"',
    ]  # fmt: skip


def test_to_leave_out_what_is_not_there_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="without 'device nothere'"):
        derived(Kernel(without=("device nothere",)))


def test_without_wishes_only_the_name_changes() -> None:
    kept = [line for line in lines(BASE) if not line.startswith("ident")]
    assert derived(Kernel()) == ["ident TEST", *kept]


@given(
    options=st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=3),
    without=st.lists(st.text(max_size=12), max_size=2),
    makeoptions=st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=2),
)
def test_wishes_are_refused_or_one_line_each(
    options: dict[str, str], without: list[str], makeoptions: dict[str, str]
) -> None:
    kernel = Kernel(options=options, without=tuple(without))
    try:
        found = lines(kernconf.derive("machine i386\n", "TEST", kernel, makeoptions))
    except UsageError:
        return
    assert len(found) <= 2 + len(options) + len(makeoptions)
    assert {line.split()[0] for line in found} <= {"ident", "machine", "options", "makeoptions"}


@pytest.mark.parametrize(
    ("option", "value"), [("A B", ""), ("", ""), ("HZ", "1 2"), ("HZ", "1\ndevice ed"), ("1HZ", ""), ("HZ", "#")]
)
def test_no_option(option: str, value: str) -> None:
    with pytest.raises(UsageError, match="is no kernel option"):
        kernconf.derive(BASE, "TEST", Kernel(options={option: value}), {})


def test_no_make_option() -> None:
    with pytest.raises(UsageError, match="is no make option"):
        kernconf.derive(BASE, "TEST", Kernel(), {"CONF_CFLAGS": '"; device ed'})


@pytest.mark.parametrize(
    ("kernel", "toolchain", "protected", "expected"),
    [
        ("up", "gcc2", False, "UP-GCC2"),
        ("smp", "gcc34", True, "SMP-GCC34-SSP"),
        ("my.own", "gcc34", False, "MY_OWN-GCC34"),
        ("4cpu", "gcc2", False, "K4CPU-GCC2"),
    ],
)
def test_names(kernel: str, toolchain: str, protected: bool, expected: str) -> None:
    assert kernconf.name(kernel, toolchain, protected=protected) == expected


def test_a_user_s_own_configuration_wins_over_the_release_s(tmp_path: Path) -> None:
    (tmp_path / "GENERIC").write_text("generic")
    (tmp_path / "OWN").write_text("own")
    assert kernconf.read(Kernel(), tmp_path, "GENERIC") == "generic"
    assert kernconf.read(Kernel(config="OWN"), tmp_path, "GENERIC") == "own"
    assert kernconf.read(Kernel(config=str(tmp_path / "OWN")), Path("/nowhere"), "GENERIC") == "own"
    with pytest.raises(UsageError, match="no kernel configuration"):
        kernconf.read(Kernel(config="GONE"), tmp_path, "GENERIC")


@pytest.mark.parametrize(
    "wish", [Kernel(config="GONE"), Kernel(without=("device gone",)), Kernel(options={"A B": ""})]
)
def test_what_is_wrong_with_a_kernel_names_it(wish: Kernel, tmp_path: Path) -> None:
    release = releases.load("1.2")
    release = release.model_copy(update={"kernels": {**release.kernels, "mine": wish}})
    generic = tmp_path / data.kernel(release).config
    generic.parent.mkdir(parents=True)
    generic.write_text(BASE)
    with pytest.raises(UsageError) as caught:
        kernel.recipe(release, Tree(tmp_path, "1.2", Hashes(tmp_path, tmp_path / ".memory")), MINE)
    assert caught.value.key == "kernels.mine"


def test_every_release_s_kernels_can_be_derived() -> None:
    found = [releases.load(name) for name in releases.available()]
    for release in (one for one in found if one.target == "dragonfly"):
        for one in release.kernels.values():
            text = kernconf.derive(BASE, "TEST", one, {})
            assert all(f"options {option}" in " ".join(lines(text)) for option in one.options)
