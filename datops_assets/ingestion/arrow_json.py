"""Arrow columns as JSON text, column by column: nested values reach bronze as `json`. Pure.

No value becomes a Python object, binary ones inside nested values excepted.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

_CONTROL = r"[\x00-\x1f]"
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def json_text(array: pa.Array) -> pa.Array:
    """Return each value as JSON text (string); an Arrow null stays a null.

    promise    decimals keep their digits, floats the shortest text that reads back the same;
               NaN and the infinities, binary, dates and times become strings; a map becomes an
               object, repeated keys included
    """
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return json_text(array.storage)
    if pa.types.is_dictionary(kind):
        return json_text(array.cast(kind.value_type))
    for applies, render in _RENDERERS:
        if applies(kind):
            return render(array)
    return _quoted(array.cast(pa.string()))


def json_objects(names: list[str], columns: list[pa.Array]) -> pa.Array:
    """Return one JSON object a row; names may repeat."""
    parts: list[pa.Array | pa.Scalar] = []
    for number, (name, column) in enumerate(zip(names, columns, strict=True)):
        parts.append(pa.scalar(("{" if number == 0 else ", ") + json.dumps(name, ensure_ascii=False) + ": "))
        parts.append(pc.fill_null(json_text(column), "null"))
    if not parts:
        raise ValueError("an object without members has no rows to count")
    return pc.binary_join_element_wise(*parts, pa.scalar("}"), "")


def _quoted(strings: pa.Array) -> pa.Array:
    text = pc.replace_substring(strings, "\\", "\\\\")
    text = pc.replace_substring(text, '"', '\\"')
    if pc.any(pc.match_substring_regex(text, _CONTROL)).as_py():
        for code in range(32):
            character = chr(code)
            escape = _SHORT_ESCAPES.get(character, f"\\u{code:04x}")
            text = pc.replace_substring(text, character, escape)
    return pc.binary_join_element_wise('"', text, '"', "")


def _numbers(array: pa.Array) -> pa.Array:
    return array.cast(pa.string())


def _floats(array: pa.Array) -> pa.Array:
    if pa.types.is_float16(array.type):
        array = array.cast(pa.float32())
    text = array.cast(pa.string())
    names = {"nan": '"NaN"', "inf": '"Infinity"', "-inf": '"-Infinity"'}
    for found, name in names.items():
        text = pc.if_else(pc.equal(text, found), name, text)
    return text


def _binary(array: pa.Array) -> pa.Array:
    return pa.array(
        [None if value is None else f'"\\\\x{value.hex()}"' for value in array.to_pylist()], pa.string()
    )


def _nulls(array: pa.Array) -> pa.Array:
    return pa.nulls(len(array), pa.string())


def _structs(array: pa.StructArray) -> pa.Array:
    names = [field.name for field in array.type]
    if not names:
        text = pa.array(["{}"] * len(array))
    else:
        # flatten() carries the nulls of the struct into its fields, and heeds slices.
        text = json_objects(names, array.flatten())
    return pc.if_else(array.is_valid(), text, pa.scalar(None, pa.string()))


def _lists(array: pa.Array) -> pa.Array:
    if pa.types.is_fixed_size_list(array.type) or not (
        pa.types.is_list(array.type) or pa.types.is_large_list(array.type)
    ):
        array = array.cast(pa.large_list(array.type.value_type))
    values = pc.fill_null(json_text(array.flatten()), "null")
    return _enclosed(array, values, "[", "]")


def _maps(array: pa.MapArray) -> pa.Array:
    entries = pa.ListArray.from_arrays(
        array.offsets, pa.StructArray.from_arrays([array.keys, array.items], ["k", "v"])
    )
    entries = pc.if_else(array.is_valid(), entries, pa.scalar(None, entries.type))
    flat = entries.flatten()
    keys = json_text(flat.field("k"))
    if not pa.types.is_string(array.type.key_type) and not pa.types.is_large_string(array.type.key_type):
        keys = pc.if_else(pc.starts_with(keys, '"'), keys, pc.binary_join_element_wise('"', keys, '"', ""))
    values = pc.binary_join_element_wise(keys, pc.fill_null(json_text(flat.field("v")), "null"), ": ")
    return _enclosed(entries, values, "{", "}")


def _enclosed(lists: pa.Array, values: pa.Array, opening: str, closing: str) -> pa.Array:
    """Join the flattened values of each list."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).cast(pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths)])
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, values), ", ")
    text = pc.binary_join_element_wise(opening, joined, closing, "")
    return pc.if_else(lists.is_valid(), text, pa.scalar(None, pa.string()))


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def _is_binary(kind: pa.DataType) -> bool:
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


_RENDERERS: list[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], pa.Array]]] = [
    (pa.types.is_null, _nulls),
    (pa.types.is_boolean, _numbers),
    (pa.types.is_integer, _numbers),
    (pa.types.is_decimal, _numbers),
    (pa.types.is_floating, _floats),
    (_is_binary, _binary),
    (pa.types.is_struct, _structs),
    (pa.types.is_map, _maps),
    (_is_list, _lists),
]
