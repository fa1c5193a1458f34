"""JSON Schemas of files, for editors that complete and check them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema


class _Toml(GenerateJsonSchema):
    """TOML has no null: a key that may be left out is simply not required."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        default = schema.get("default")
        if default is None or isinstance(default, BaseModel):
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def get_title_from_name(self, name: str) -> str:
        return name


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the TOML files that `model` reads.

    What a file must say may also be said by the one that it is like, where there is such a thing; and of its tables
    any part, but of those in a list, which are whole.
    """
    schema = {"$schema": _Toml.schema_dialect, **model.model_json_schema(schema_generator=_Toml)}
    if "like" in model.model_fields:
        schema["anyOf"] = [{"required": schema.pop("required")}, {"required": ["like"]}]
        parts = schema.get("$defs", {})
        whole = {*_listed(schema)}
        for name in parts.keys() - whole:
            parts[name].pop("required", None)
    return schema


def _listed(schema: Any) -> Iterator[str]:
    """The names of definitions that arrays in `schema` are made of."""
    if isinstance(schema, list):
        for part in schema:
            yield from _listed(part)
    elif isinstance(schema, dict):
        reference = schema.get("items")
        if isinstance(reference, dict) and "$ref" in reference:
            yield reference["$ref"].rpartition("/")[2]
        for part in schema.values():
            yield from _listed(part)
