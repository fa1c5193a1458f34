"""Documents that are like another: what is merged, joined, replaced and left out, and where problems are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild import releases
from dfbuild.build.dragonfly import data
from dfbuild.errors import UsageError
from dfbuild.toml import Document, InvalidFile, inherit

BASE = """\
name = "base"
words = ["a", "b"]
[table]
one = 1
two = 2
[table.inner]
deep = true
[[rules]]
when = "x"
reason = "first"
[[rules]]
when = "y"
reason = "second"
[[rules]]
when = "x"
reason = "third"
"""


def like(own: str, *without: str, base: str = BASE) -> Document:
    mine = Document.parse(own, Path("own.toml"))
    return inherit(mine, Document.parse(base, Path("base.toml")), without, ("without",))


def test_tables_are_merged_lists_of_tables_joined_and_all_else_replaced() -> None:
    found = like('words = ["c"]\n[table]\ntwo = 3\n[table.inner]\nmore = 4\n[[rules]]\nwhen = "z"\n').data
    assert found["name"] == "base"
    assert found["words"] == ["c"]
    assert found["table"] == {"one": 1, "two": 3, "inner": {"deep": True, "more": 4}}
    assert [rule["when"] for rule in found["rules"]] == ["x", "y", "x", "z"]


def test_a_table_and_what_is_none_replace_each_other() -> None:
    assert like("table = 5\n").data["table"] == 5
    assert like("[words]\nc = 1\n").data["words"] == {"c": 1}


@pytest.mark.parametrize(
    ("without", "gone"),
    [
        ("name", ("name",)),
        ("table.inner", ("table", "inner")),
        ("table.inner.deep", ("table", "inner", "deep")),
        ("rules", ("rules",)),
    ],
)
def test_what_is_left_out(without: str, gone: tuple[str, ...]) -> None:
    found, base = like("", without).data, Document.parse(BASE, Path("base.toml")).data
    for key in gone[:-1]:
        found, base = found[key], base[key]
    assert found == {key: value for key, value in base.items() if key != gone[-1]}


def test_entries_of_a_list_are_named_by_their_first_value() -> None:
    assert [rule["reason"] for rule in like("", "rules.x").data["rules"]] == ["second"]
    found = like('[[rules]]\nwhen = "y"\nreason = "mine"\n', "rules.y").data["rules"]
    assert [rule["reason"] for rule in found] == ["first", "third", "mine"]


def test_a_part_of_an_entry_of_a_list_can_be_left_out() -> None:
    assert like("", "rules.y.reason").data["rules"][1] == {"when": "y"}
    found = like('[[rules]]\nwhen = "z"\n', "rules.x", "rules.y.reason").data["rules"]
    assert found == [{"when": "y"}, {"when": "z"}]
    inner = '[[rules]]\nwhen = "x"\n[[rules]]\nwhen = "y"\nwords = ["a", "b", "c"]\n'
    found = like("", "rules.x", "rules.y.words.b", base=inner)
    assert found.data["rules"] == [{"when": "y", "words": ["a", "c"]}]
    assert "base.toml:5" in str(found.problem(("rules", 0, "words", 1), "wrong"))


def test_entries_of_a_list_of_words_are_named_by_themselves() -> None:
    assert like("", "words.a").data["words"] == ["b"]
    assert like("", 'words."b"').data["words"] == ["a"]


def test_what_is_left_of_a_list_of_words_is_told_where_it_is_written() -> None:
    found = like("", "words.a")
    assert "base.toml:2" in str(found.problem(("words", 0), "wrong"))


def test_lists_inside_tables_that_only_the_base_has() -> None:
    base = '[t]\n[[t.l]]\nk = "a"\n[[t.l]]\nk = "b"\n[t.l.deep]\nx = 1\ny = 2\n'
    assert like("", "t.l.a", base=base).data["t"]["l"] == [{"k": "b", "deep": {"x": 1, "y": 2}}]


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("table.on", "base.toml has nothing of that name", "did you mean 'one'? (in table)"),
        ("rules.w", "base.toml has nothing of that name", "known: x, y, x (in rules)"),
        ("table.one.more", "base.toml has nothing of that name", ""),
        ("rules.x y", "expected a dotted key, found 'rules.x y'", "is quoted"),
        ("a = 1\nb", "expected a dotted key", "is quoted"),
        ("", "expected a dotted key, found ''", "is quoted"),
    ],
)
def test_names_of_nothing(name: str, message: str, hint: str) -> None:
    own = Document.parse(f"x = 1\nwithout = [{json.dumps(name)}]\n", Path("own.toml"))
    with pytest.raises(InvalidFile) as caught:
        inherit(own, Document.parse(BASE, Path("base.toml")), [name], ("without",))
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.key) == (Path("own.toml"), 2, "without[0]")
    assert message in problem.message
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("place", "file", "line", "key"),
    [
        (("table", "one"), "base.toml", 4, "table.one"),
        (("table", "two"), "own.toml", 2, "table.two"),
        (("table", "inner", "deep"), "base.toml", 7, "table.inner.deep"),
        (("table", "missing"), "own.toml", 1, "table.missing"),
        (("rules", 0, "reason"), "base.toml", 13, "rules[1].reason"),
        (("rules", 1, "when"), "own.toml", 4, "rules[0].when"),
        (("rules", 1, "missing"), "own.toml", 3, "rules[0].missing"),
    ],
)
def test_problems_are_told_where_the_thing_is_written(
    place: tuple[str | int, ...], file: str, line: int, key: str
) -> None:
    document = like('[table]\ntwo = 3\n[[rules]]\nwhen = "z"\n', "rules.x")
    problem = document.problem(place, "wrong")
    assert (problem.file, problem.line, problem.key) == (Path(file), line, key)


KEYS = st.sampled_from("abc")
DOCUMENTS = st.recursive(
    st.integers(0, 3),
    lambda inner: (
        st.dictionaries(KEYS, inner, min_size=1, max_size=3)
        | st.lists(st.dictionaries(KEYS, inner, min_size=1, max_size=2), min_size=1, max_size=2)
    ),
    max_leaves=8,
)
TABLES = st.dictionaries(KEYS, DOCUMENTS, max_size=3)


@given(own=TABLES, base=TABLES)
def test_own_values_win_and_nothing_is_invented(own: dict[str, object], base: dict[str, object]) -> None:
    found = inherit(Document(Path("o"), own, {}), Document(Path("b"), base, {}), (), ()).data
    assert set(found) == set(own) | set(base)
    for key, value in own.items():
        if isinstance(value, int) or key not in base:
            assert found[key] == value
    for key in set(base) - set(own):
        assert found[key] == base[key]
    assert inherit(Document(Path("o"), {}, {}), Document(Path("b"), base, {}), (), ()).data == base


def test_a_release_of_one_s_own(tmp_path: Path) -> None:
    """Two lines are a release; what they say is over what dfbuild knows."""
    (tmp_path / "mine.toml").write_text('name = "mine"\nlike.release = "1.2"\n[kernels.mine]\nconfig = "/k/MINE"\n')
    mine, known = releases.load("./mine.toml", tmp_path), releases.load("1.2")
    assert mine.kernels == {**known.kernels, "mine": mine.kernels["mine"]}
    assert mine.model_copy(update={"name": "1.2", "kernels": known.kernels, "like": None}) == known
    (tmp_path / "heir.toml").write_text(
        'name = "heir"\n[like]\nrelease = "./mine.toml"\nwithout = ["kernels.up"]\n'
    )
    assert set(releases.load("./heir.toml", tmp_path).kernels) == set(mine.kernels) - {"up"}


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        ('like.release = "1.22"\n', 2, "like.release", "unknown release '1.22'"),
        ('[like]\nrelease = "./other.toml"\n', 3, "like.release", "./other.toml is like mine.toml"),
        ('like = "1.2"\n', 2, "like", "expected a table"),
        ('[like]\nrelease = "1.2"\nwithout = ["kernels.polling"]\n', 0, "expect", "kernel is never 'polling'"),
        ('like.release = "1.2"\nkernals = {}\n', 3, "kernals", "unknown key"),
    ],
)
def test_errors_of_releases_that_are_like_others(
    tmp_path: Path, text: str, line: int, key: str, message: str
) -> None:
    (tmp_path / "other.toml").write_text('name = "other"\nlike.release = "./mine.toml"\n')
    (tmp_path / "mine.toml").write_text(f'name = "mine"\n{text}')
    with pytest.raises(InvalidFile) as caught:
        releases.load("./other.toml" if "is like" in message else "./mine.toml", tmp_path)
    problem = caught.value.problems[0]
    assert message in problem.message
    assert str(problem.key).startswith(key)
    if line:
        assert (problem.file, problem.line) == (caught.value.file, line)
    else:
        assert problem.file == Path(releases.__file__).parent / "1.2.toml"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            'without = ["toolchains.gcc2"]\n',
            "build.compilers.gcc2: release mine: a compiler is built that is no toolchain",
        ),
        (
            '[toolchains.gcc99]\ncc = "gcc99"\ncomment = "x"\n',
            "toolchains.gcc99: release mine: nothing says how the toolchain 'gcc99' is built",
        ),
        (
            '[build.compilers.gcc34]\nbinutils = "binutils9"\n',
            "build.compilers.gcc34.binutils: release mine: there are no binary utilities 'binutils9'",
        ),
        (
            "[build.kernel]\nconfig = 5\n",
            "{file}:5: build.kernel.config: expected text in quotation marks, found 5",
        ),
        (
            "[build.world]\nlibs = []\n",
            "{file}:5: build.world.libs: unknown key\n  hint: did you mean 'libraries'?",
        ),
        ("[build.kernl]\nx = 1\n", "{file}:4: build.kernl: unknown key\n  hint: did you mean 'kernel'?"),
        ("[build.image]\nepoch = 'x'\n", "{file}:5: build.image.epoch: "),
        (
            '[build.compilers.gcc34]\ncomponents = { "lib" = "gcc99" }\n',
            "build.compilers.gcc34.components: release mine: 'gcc99' is none of the tree's own compilers\n"
            "  hint: one of gcc2, gcc34",
        ),
        ('[build.compilers.gcc34]\nworld = "gcc9"\n', "build.compilers.gcc34.world: release mine: 'gcc9' is none"),
    ],
)
def test_a_build_table_that_cannot_be_used_is_told_where_it_stands(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'name = "mine"\n[like]\nrelease = "1.2"\n{text}')
    with pytest.raises(UsageError) as caught:
        data.of(releases.load("./mine.toml", tmp_path))
    assert str(caught.value).startswith(told.format(file=file))
