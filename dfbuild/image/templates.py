"""The files of `images/`: found in a source checkout and in an installed package, and rendered by jinja2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import dfbuild
from dfbuild.errors import InfraError

_TEMPLATE = ".j2"


def images(name: str) -> Path:
    """The directory `images/<name>`.

    A wheel carries `images/` inside the package as `_images` (see pyproject.toml); in a checkout it lies beside it.
    """
    package = Path(dfbuild.__file__).parent
    for place in (package / "_images", package.parent / "images"):
        if (place / name).is_dir():
            return place / name
    raise InfraError(f"dfbuild's own files images/{name} are missing", hint="install dfbuild again")


def render(text: str, values: Mapping[str, object]) -> str:
    """The jinja2 template `text` with `values`; a name that is none of them is an error."""
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True, autoescape=False
    )
    return environment.from_string(text).render(values)


def render_tree(root: Path, values: Mapping[str, object]) -> dict[str, bytes]:
    """All files below `root` by relative path, `.j2` ones rendered with `values`; an unknown name is an error."""
    rendered: dict[str, bytes] = {}
    for path in _files(root):
        name = path.relative_to(root).as_posix()
        text = path.read_bytes()
        if name.endswith(_TEMPLATE):
            name = name.removesuffix(_TEMPLATE)
            text = render(text.decode(), values).encode()
        rendered[name] = text
    return rendered


def _files(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.rglob("*")) if path.is_file())
