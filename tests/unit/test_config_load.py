"""Matrix files: what they come to, and what is said of those that are wrong."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild import releases, toml
from dfbuild.config import Limits, Matrix, load, schema
from dfbuild.config.shapes import Shapes, hardware, objections
from dfbuild.errors import UsageError
from dfbuild.guest import models
from dfbuild.guest.xen import domain
from dfbuild.model import Shape
from dfbuild.releases.schema import ShapeFields
from dfbuild.toml import InvalidFile

CONFIGS = Path(__file__).parents[2] / "configs"
AXES = """\
release = "reference"
[axes]
toolchain = ["gcc-12", "clang-14"]
stack_protector = "on"
kernel = "smp"
shape = ["up", "smp2"]
"""


def read(directory: Path, text: str) -> Matrix:
    file = directory / "mine.toml"
    file.write_text(text)
    return load(file)


def complaints(directory: Path, text: str) -> list[tuple[int | None, str, str, str]]:
    """Line, key, message and hint of every problem."""
    with pytest.raises(InvalidFile) as caught:
        read(directory, text)
    problems = caught.value.problems
    assert all(problem.file == directory / "mine.toml" for problem in problems)
    assert str(caught.value) == "\n".join(str(problem) for problem in problems)
    assert caught.value.exit_status == 2
    return [(problem.line, problem.key, problem.message, problem.hint) for problem in problems]


# ── what is right ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_matrix(tmp_path: Path) -> None:
    matrix = read(
        tmp_path,
        """\
release = "reference"
via = "serial"
baseline = "last-good"
[axes]
toolchain = ["gcc-12", "clang-14"]
shape = ["big", "up"]
suites = ["security", "scheduler"]
[defaults]
stack_protector = "on"
kernel = "smp"
[limits]
memory = 2048
boots = 1
[shape]
memory = 512
nic = "e1000"
[shapes.big]
cores = 2
memory = 1024
[[include]]
shape = "ht2"
suites = []
[[exclude]]
when = "shape=big and toolchain=clang*"
reason = "slow"
""",
    )
    assert (matrix.name, matrix.file, matrix.release.name) == ("mine", tmp_path / "mine.toml", "reference")
    assert matrix.axes.toolchains == ("gcc-12", "clang-14")
    assert matrix.axes.stack_protectors == ("on",)
    assert [shape.name for shape in matrix.axes.shapes] == ["big", "up"]
    assert matrix.axes.suites == ("security", "scheduler")
    (include,) = matrix.include
    assert include.toolchains == ("gcc-12", "clang-14")
    assert [shape.name for shape in include.shapes] == ["ht2"]
    assert include.suites == ()
    assert [(entry.when, entry.reason) for entry in matrix.exclude] == [("shape=big and toolchain=clang*", "slow")]
    assert matrix.limits == Limits(memory=2048, boots=1, guests=None)
    assert (matrix.via, matrix.baseline) == ("serial", "last-good")


def test_layers_of_a_shape(tmp_path: Path) -> None:
    """Model, release, the file's [shape], the library, the file's [shapes.NAME]: each later one wins."""
    text = AXES.replace('["up", "smp2"]', '["up", "nx-off", "smp2"]')
    matrix = read(tmp_path, text + "[shape]\nmemory = 333\nnx = true\n[shapes.smp2]\nmemory = 444\n")
    up, off, smp2 = matrix.axes.shapes
    given = {**matrix.release.shape.given(), "memory": 333}
    assert given["root"] != Shape("model").root, "the release's own is among the layers"
    assert up == Shape("up", **given)
    assert off == Shape("nx-off", **{**given, "nx": False})
    assert smp2 == Shape("smp2", **{**given, "memory": 444, "sockets": 2})


def test_a_cpu_model_does_not_go_with_a_shape_to_another_hypervisor() -> None:
    release = releases.load("1.2").shape
    assert release.cpu
    own = {
        "xen": ShapeFields(hypervisor="xen-hvm"),
        "other": ShapeFields(hypervisor="xen-hvm", cpu="Haswell"),
        "bare": ShapeFields(hypervisor="qemu"),
    }
    shapes = Shapes(release, ShapeFields(), own)
    assert shapes.compose("xen").cpu == ""
    assert objections(shapes.compose("xen")) == []
    assert shapes.compose("other").cpu == "Haswell"
    assert shapes.compose("bare").cpu == release.cpu


def test_the_common_shapes_can_be() -> None:
    release = releases.load("reference")
    assert set(hardware().shapes) >= {"up", "smp2", "smp4", "ht2", "nx-off"}
    for name, fields in hardware().shapes.items():
        assert objections(Shape(name, **release.shape.given() | fields.given())) == []
    ht2 = hardware().shapes["ht2"]
    assert (ht2.threads, ht2.cpu) == (2, "Haswell-noTSX")


def test_one_shape_is_one_object(tmp_path: Path) -> None:
    matrix = read(tmp_path, AXES + '[[include]]\nstack_protector = "off"\n')
    assert all(a is b for a, b in zip(matrix.axes.shapes, matrix.include[0].shapes, strict=True))


def test_suites_left_out_are_all_of_the_release(tmp_path: Path) -> None:
    matrix = read(tmp_path, AXES)
    assert matrix.axes.suites == matrix.release.suites
    assert matrix.axes.suites == ("scheduler", "network", "security", "packages", "hardware", "native")
    assert matrix.via == "ssh"


def test_a_default_wins_over_the_axis_in_an_include(tmp_path: Path) -> None:
    matrix = read(tmp_path, AXES + '[defaults]\ntoolchain = "gcc-12"\n[[include]]\nshape = "ht2"\n')
    assert matrix.axes.toolchains == ("gcc-12", "clang-14")
    assert matrix.include[0].toolchains == ("gcc-12",)


OWN = """\
name = "own"
title = "My own"
target = "reference"
elf_machine = "EM_X86_64"
probes = "/probes"
toolchains.gcc-12 = { cc = "gcc-12", comment = "GCC" }
toolchains.clang-14 = { cc = "clang-14", comment = "clang" }
stack_protectors.on = {}
kernels.smp = {}
console.stages = [{ name = "login", pattern = "login: ", deadline = 1 }]
console.crashes = []
"""


def test_a_release_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(OWN)
    text = AXES.replace('"reference"', '"./own.toml"')
    matrix = read(tmp_path, text)
    assert (matrix.release.title, matrix.via) == ("My own", "serial")
    assert complaints(tmp_path, 'via = "ssh"\n' + text) == [
        (1, "via", "own guests have no SSH", 'via = "serial"'),
    ]
    (tmp_path / "own.toml").write_text(OWN.replace("title", "tittle"))
    with pytest.raises(InvalidFile) as caught:
        read(tmp_path, text)
    assert (caught.value.file, caught.value.line) == (tmp_path / "./own.toml", 1)
    assert "own.toml:2: tittle: unknown key" in str(caught.value)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.toml")), ids=lambda file: file.name)
def test_shipped_matrices_load_and_obey_the_schema(file: Path) -> None:
    load(file)
    jsonschema.validate(toml.Document.read(file).data, schema())


@pytest.mark.parametrize("name", releases.available())
def test_shipped_releases_obey_the_schema(name: str) -> None:
    file = Path(releases.__file__).parent / f"{name}.toml"
    jsonschema.validate(toml.Document.read(file).data, releases.json_schema())


def test_a_matrix_that_is_like_another(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "own.toml").write_text('name = "own"\n[like]\nrelease = "reference"\n')
    (there / "base.toml").write_text(
        'release = "./own.toml"\nvia = "serial"\n[axes]\ntoolchain = "gcc-12"\nstack_protector = "on"\n'
        'kernel = "smp"\nshape = ["smp2", "odd"]\n[shapes.odd]\nsockets = 3\n'
    )
    (tmp_path / "heir.toml").write_text('[like]\nmatrix = "there/base.toml"\n[axes]\nshape = "odd"\n')
    found = load(tmp_path / "heir.toml")
    assert (found.name, found.release.name, found.via) == ("heir", "own", "serial")
    assert found.axes.kernels == ("smp",)
    assert [(shape.name, shape.sockets) for shape in found.axes.shapes] == [("odd", 3)]


@pytest.mark.parametrize(
    ("heir", "message"),
    [
        ('matrix = "base.toml"\nwithout = ["axes.shape"]', r"base\.toml:6: axes\.shape: this axis is missing"),
        ('matrix = "base.toml"\nwithout = ["axes.shop"]', r"heir\.toml:3: .*nothing of that name"),
        ('matrix = "heir.toml"', r"heir\.toml:2: .*heir\.toml is like heir\.toml"),
        ('matrix = "none.toml"', r"heir\.toml:2: like\.matrix: there is no file .*none\.toml"),
    ],
)
def test_what_is_wrong_with_what_a_matrix_is_like(tmp_path: Path, heir: str, message: str) -> None:
    (tmp_path / "base.toml").write_text(
        'release = "reference"\n[axes]\ntoolchain = "gcc-12"\nstack_protector = "on"\n'
        'kernel = "smp"\nshape = "up"\n'
    )
    (tmp_path / "heir.toml").write_text(f"[like]\n{heir}\n")
    with pytest.raises(UsageError, match=message):
        load(tmp_path / "heir.toml")


# ── what is wrong ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "line", "key", "message", "hint"),
    [
        # syntax
        ("a = 1\nb = x\n", 2, "", "not TOML: invalid value\n    b = x\n        ^", ""),
        ("a = 1\nb = [1,\n", 2, "", "not TOML: invalid value", ""),
        ("a = 1\na = 2", 2, "a", "this key is there already, in line 1", "leave one"),
        (AXES + 'kernel = """s\nmp"""\n', 7, "axes.kernel", "this key is there already, in line 5", "leave one"),
        (AXES + "[axes]\n", 7, "axes", "this key is there already, in line 2", "leave one"),
        (AXES + "[axes.shape.up]\n", 7, "axes.shape", "this key is there already, in line 6", "leave one"),
        ("a = {b = 1}\r\n\r\na.c = 2", 3, "a", "this key is there already, in line 1", "leave one"),
        ("[[a]]\nb = 1\n[[a]]\nb = 1\nb = 2\n", 5, "a[1].b", "this key is there already, in line 4", "leave one"),
        ("a = {b = 1, b.c = 1}\n", 1, "", "not TOML: cannot overwrite a value", ""),
        # structure
        ("", 1, "release", "this key is missing", "A release that dfbuild knows"),
        (AXES + "[limit]\n", 7, "limit", "unknown key", "did you mean 'limits'?"),
        (AXES + "[limits]\nmemory = 10\nboot = 3\n", 9, "limits.boot", "unknown key", "did you mean 'boots'?"),
        (AXES + "[shapes.x]\n\nthread = 2\n", 9, "shapes.x.thread", "unknown key", "did you mean 'threads'?"),
        (AXES + "[shapes.threads]\nthread = 2\n", 8, "shapes.threads.thread", "unknown key", "'threads'"),
        (AXES + "[shapes]\nx.nx = 'off'\n", 8, "shapes.x.nx", 'expected true or false, found "off"', "quotation"),
        (AXES + "[shapes]\nx.nx = 'yes'\n", 8, "shapes.x.nx", 'found "yes"', "true or false"),
        (AXES + "[shapes]\nx.nx = 'true'\n", 8, "shapes.x.nx", 'found "true"', "write it without quotation"),
        (AXES + "[limits]\nboots = '3'\n", 8, "limits.boots", 'found "3"', "write it without quotation"),
        (AXES + "[limits]\nboots = 'three'\n", 8, "limits.boots", 'found "three"', "a whole number"),
        (AXES + "[limits]\nboots = 0\n", 8, "limits.boots", "expected 1 or more, found 0", ""),
        (AXES + "[limits]\nboots = 1.5\n", 8, "limits.boots", "expected a whole number, found 1.5", ""),
        (AXES + "[limits]\nboots = true\n", 8, "limits.boots", "expected a whole number, found true", ""),
        (AXES + "[shapes.x]\nthreads = 99\n", 8, "shapes.x.threads", "expected 64 or less, found 99", ""),
        (AXES + "[shapes.x]\ncpu = 486\n", 8, "shapes.x.cpu", "expected text in quotation marks", 'write "486"'),
        (AXES + "[shapes.x]\ncpu = 1979-05-27\n", 8, "shapes.x.cpu", "expected text in quotation marks", ""),
        (AXES + "[shapes.x]\nnic = 'e1000,id=x'\n", 8, "shapes.x.nic", "expected text that matches", ""),
        (
            AXES + "[shapes.x]\nconsole = 'seriel'\n",
            8,
            "shapes.x.console",
            "expected 'serial', 'virtio' or 'xen'",
            "serial",
        ),
        (AXES + '[shapes."a b"]\nnx = true\n', 7, 'shapes."a b"', "expected a name that is text that matches", ""),
        (AXES + "[exclude]\nwhen = 'nx=on'\n", 7, "exclude", "expected a list, found a table", ""),
        (AXES + "[[exclude]]\nwhen = 'nx=on'\n", 7, "exclude[0].reason", "this key is missing", "Why"),
        (AXES.replace('"on"', "true"), 4, "axes.stack_protector", "expected a list, found true", 'write "on"'),
        (AXES.replace('"smp"', '["smp", 3]'), 5, "axes.kernel[1]", "expected text in quotation marks, found 3", ""),
        # names
        (AXES.replace("reference", "referense"), 1, "release", "unknown release 'referense'", "'reference'"),
        (AXES.replace("reference", "./no.toml"), 1, "release", "/no.toml cannot be read: No such file", ""),
        (AXES.replace("clang-14", "clang14"), 3, "axes.toolchain[1]", "called 'clang14'", "'clang-14'"),
        (AXES.replace("clang-14", "gcc-12"), 3, "axes.toolchain[1]", "'gcc-12' stands here twice", "leave one"),
        (AXES.replace('["up", "smp2"]', '[\n "up",\n "smp3"]'), 8, "axes.shape[1]", "called 'smp3'", "'smp"),
        (AXES.replace('"on"', '"onn"'), 4, "axes.stack_protector", "no stack protector of reference", "'on'"),
        (AXES.replace('"smp"', '"SMP"'), 5, "axes.kernel", "no kernel of reference is called 'SMP'", "smp"),
        (AXES.replace('"smp"', "[]"), 5, "axes.kernel", "expected at least one name, found none", "known: smp"),
        (AXES + "suites = ['schedular']\n", 7, "axes.suites[0]", "no suite of reference", "'scheduler'"),
        (AXES.replace('kernel = "smp"', ""), 2, "axes.kernel", "this axis is missing", "known: smp"),
        (AXES + "[[include]]\nshape = 'hat2'\n", 8, "include[0].shape", "no shape is called 'hat2'", "'ht2'"),
        (AXES + "[[include]]\n", 7, "include[0]", "names no axis", "smp4"),
        # expressions
        (
            AXES + "[[exclude]]\nwhen = 'shap=up'\nreason = 'x'",
            8,
            "exclude[0].when",
            "unknown attribute",
            "'shape'",
        ),
        (AXES + "[[exclude]]\nwhen = 'shape=hat2'\nreason = 'x'", 8, "exclude[0].when", "never 'hat2'", "'ht2'"),
        # hardware
        (
            AXES + "[limits]\nmemory = 99\n",
            8,
            "limits.memory",
            "less than one guest alone has: shape up, smp2",
            "256",
        ),
        (
            AXES + "[shapes.smp2]\ncores = 33\n",
            7,
            "shapes.smp2",
            "2 sockets x 33 cores x 1 threads are 66 CPUs",
            "64",
        ),
        (
            AXES + "[shapes.x]\nthreads = 2\ncpu = 'EPYC'\n",
            7,
            "shapes.x",
            "does not show its threads",
            "Haswell-noTSX",
        ),
        (
            AXES.replace('"smp2"', "") + "[shape]\nthreads = 2\ncpu = 'max'\n",
            6,
            "axes.shape[0]",
            "does not show its threads",
            "sockets",
        ),
        (AXES + "[shapes.x]\ncpu = 'pentium3'\n", 7, "shapes.x", "no no-execute bit", "nx = false"),
        (AXES + "[shapes.x]\nnx = true\ndisk = 'ide'\n", 7, "shapes.x", "speaks AHCI, not IDE", '"ahci"'),
        (AXES + "[shapes.x]\nnx = true\nnic = 'e100'\n", 9, "shapes.x.nic", "no nic is called 'e100'", "'e1000"),
        (AXES + "[shapes.x]\nmachine = 'q36'\n", 8, "shapes.x.machine", "no machine is called 'q36'", "'q35'"),
        (AXES.replace("up", "nx-off") + "[shape]\ndisk = 'x'\n", 8, "shape.disk", "'nx-off': no disk", "nvme"),
    ],
)
def test_errors(tmp_path: Path, text: str, line: int | None, key: str, message: str, hint: str) -> None:
    if line is None:
        with pytest.raises(UsageError, match=message):
            read(tmp_path, text)
        return
    found = complaints(tmp_path, text)
    assert [(place[0], place[1]) for place in found if message in place[2] and hint in place[3]] == [(line, key)], (
        found
    )


def test_all_problems_are_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
release = "reference"
[[exclude]]
when = "nx=maybe"
reason = "x"
[limits]
memory = 16
[axes]
toolchain = ["gcc-13", "clang-13"]
stack_protector = "on"
kernel = "smp"
shape = "up"
"""
    assert [(line, key) for line, key, _, _ in complaints(tmp_path, text)] == [
        (3, "exclude[0].when"),
        (6, "limits.memory"),
        (8, "axes.toolchain[0]"),
        (8, "axes.toolchain[1]"),
    ]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ('release = "referense"\n', [(1, "release"), (1, "axes")]),
        ('release = "referense"\n[axis]\n', [(1, "release"), (1, "axes"), (2, "axis")]),
        ('release = ""\n', [(1, "release"), (1, "axes")]),
        ('release = "reference"\n', [(1, "axes")]),
    ],
)
def test_a_wrong_release_is_told_beside_what_else_is_wrong(
    tmp_path: Path, text: str, places: list[tuple[int, str]]
) -> None:
    assert sorted((line or 0, key) for line, key, _, _ in complaints(tmp_path, text)) == sorted(places)


def test_the_whole_text_of_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, AXES.replace("toolchain", "toolchian"))
    place = f"{tmp_path}/mine.toml:3: axes.toolchian"
    assert str(caught.value) == f"{place}: unknown key\n  hint: did you mean 'toolchain'?"


def test_a_threaded_shape_may_be_amd_where_it_is_not_emulated() -> None:
    assert objections(Shape("x", threads=2, cpu="EPYC"))
    assert not objections(Shape("x", threads=2, cpu="EPYC", accel="kvm"))
    assert not objections(Shape("x", threads=2, cpu="core2duo"))


def test_the_models_are_those_that_guests_can_have() -> None:
    known = hardware().models
    xen = domain.KINDS.values()
    assert set(known["disk"]) == set(models.DISKS).union(*(kind.disks for kind in xen))
    assert set(known["nic"]) == set(models.NICS).union(*(kind.nics for kind in xen))
    assert set(known["hypervisor"]) == {"qemu", *domain.KINDS}
    assert set(known["video"]) == set(models.VIDEOS)
    assert {name.removesuffix("*") for name in known["machine"]} == set(models.MACHINES)


def test_a_mark_that_an_editor_puts_before_the_text_is_none_of_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(AXES, encoding="utf-8-sig")
    assert load(file).axes.kernels == ("smp",)
    file.write_text(f"x = 1\n{AXES}", encoding="utf-8-sig")
    with pytest.raises(UsageError, match=":1: x: unknown key"):
        load(file)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(b'release = "reference"\nvia = "\xff"\n')
    with pytest.raises(UsageError, match="not UTF-8") as caught:
        load(file)
    assert caught.value.line == 2
    with pytest.raises(UsageError, match="cannot be read: No such file or directory"):
        load(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_names_that_the_release_refuses_are_no_errors(tmp_path: Path) -> None:
    assert read(tmp_path, AXES.replace("clang-14", "gcc34")).axes.toolchains == ("gcc-12", "gcc34")
    # A rule that holds for every cell is no statement about a name.
    (tmp_path / "own.toml").write_text(OWN + '[[refuse]]\nwhen = "memory<64"\nreason = "too small"\n')
    text = AXES.replace('"reference"', '"./own.toml"')
    assert complaints(tmp_path, text.replace("clang-14", "clang-13"))[0][1] == "axes.toolchain[1]"


junk = st.recursive(
    st.booleans() | st.integers() | st.sampled_from(("up", "gcc-12", "on", "nx=on", "", "\n")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("up", "a b")), inner, max_size=2),
    max_leaves=3,
)
keys = st.sampled_from(
    ("toolchain", "stack_protector", "kernel", "shape", "suites", "when", "reason", "memory", "x")
)
tables = st.dictionaries(keys, junk, max_size=3)
tops = st.sampled_from(("axes", "defaults", "include", "exclude", "shape", "shapes", "limits", "via", "x"))


def as_toml(value: object) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{json.dumps(k)} = {as_toml(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps(value)


@given(st.dictionaries(tops, junk | tables | st.lists(tables, max_size=2), max_size=4))
def test_whatever_a_file_says_it_is_a_matrix_or_problems_with_their_places(data: dict[str, object]) -> None:
    text = 'release = "reference"\n' + "".join(f"{key} = {as_toml(value)}\n" for key, value in data.items())
    with tempfile.TemporaryDirectory() as directory:
        try:
            read(Path(directory), text)
        except InvalidFile as error:
            assert all(problem.line and problem.message for problem in error.problems)
            assert [p.line for p in error.problems] == sorted(p.line or 0 for p in error.problems)


# ── the schema ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_schema_is_a_schema_and_finds_what_the_loader_finds() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.Draft202012Validator.check_schema(releases.json_schema())
    good = {"release": "reference", "axes": {"toolchain": "gcc-12", "shape": ["up"]}}
    jsonschema.validate(good, schema())
    for bad in (
        {**good, "vai": "ssh"},
        {**good, "via": "telnet"},
        {**good, "axes": {"toolchains": ["gcc-12"]}},
        {**good, "limits": {"boots": 0}},
        {"axes": {}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema())


def test_schema_describes_every_key_of_a_matrix() -> None:
    undescribed = [
        f"{name}.{key}"
        for name, table in {"": schema(), **schema()["$defs"]}.items()
        for key, value in table["properties"].items()
        if "description" not in value
    ]
    assert undescribed == []
