"""One form for one value: fields of a configuration as JSON, by the type that their class declares.

``180`` and ``180.0`` in a float field are one value, ``-0.0`` is ``0.0``, an integral float in an int field is the int.
A field declared ``int | float`` keeps the two apart: such a declaration says that they differ.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union

import numpy as np

PartForm = Callable[[Any, str], Any]
"""Form of a dataclass instance, with the place it stands at."""


@functools.cache
def declared_types(owner: type) -> dict[str, Any]:
    """Types of the annotated fields of a class by name; ``Any`` where an annotation cannot be resolved."""
    try:
        return typing.get_type_hints(owner)
    except Exception:  # one name that exists for type checkers only: the others still count
        return {
            name: _resolved(annotation, base)
            for base in reversed(owner.__mro__)
            for name, annotation in vars(base).get("__annotations__", {}).items()
        }


def canonical_form(value: Any, declared: Any, where: str, part_form: PartForm) -> Any:
    """``value`` of a field ``where`` of type ``declared`` as plain JSON values in one fixed form.

    Raises TypeError naming the field, the value and what was expected.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return part_form(value, where)
    if isinstance(value, np.generic):
        value = value.item()
    return _form(value, declared, where, part_form)


def _form(value: Any, declared: Any, where: str, part_form: PartForm) -> Any:
    declared = _bare(declared)
    origin = typing.get_origin(declared)
    if origin in (Union, types.UnionType):
        return _union(value, typing.get_args(declared), where, part_form)
    if origin is Literal:
        return _literal(value, typing.get_args(declared), where)
    if declared is bool:
        return _expected(value, where, "True or False") if not isinstance(value, bool) else value
    if declared is float:
        return _float(value, where)
    if declared is int:
        return _int(value, where)
    if declared is str:
        return str(value) if isinstance(value, str) else _expected(value, where, "a string")
    if declared in (None, type(None)):
        return None if value is None else _expected(value, where, "None")
    if isinstance(value, list | tuple | range):
        return _sequence(value, declared, where, part_form)
    if isinstance(value, Mapping):
        return _mapping(value, declared, where, part_form)
    is_foreign = isinstance(declared, type) and isinstance(value, bool | int | float | str)
    if is_foreign and declared not in (Any, object) and not _is_instance(value, declared):
        return _expected(value, where, declared.__name__)
    return _plain(value, where)


def _plain(value: Any, where: str) -> Any:
    """Where nothing is declared the value's own type counts."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return _float(value, where)
    raise TypeError(
        f"{where} = {value!r} has no canonical form: use numbers, strings, tuples, dicts with string keys, "
        "frozen dataclasses, or mark the field with recorded() if it must not count"
    )


def _float(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return float(_expected(value, where, "a number"))
    if not math.isfinite(value):
        raise TypeError(f"{where} = {value}: a configuration holds finite numbers only")
    return float(value) + 0.0  # -0.0 becomes 0.0


def _int(value: Any, where: str) -> int:
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return int(value) if is_whole and not isinstance(value, bool) else int(_expected(value, where, "a whole number"))


def _literal(value: Any, allowed: tuple[Any, ...], where: str) -> Any:
    for choice in allowed:
        if choice == value and isinstance(choice, bool) == isinstance(value, bool):
            return choice
    return _expected(value, where, f"one of {', '.join(repr(choice) for choice in allowed)}")


def _union(value: Any, members: tuple[Any, ...], where: str, part_form: PartForm) -> Any:
    """By the member that the value is an instance of, else by the first that takes it."""
    if isinstance(value, range) and any(_is_sequence(member) for member in members):
        members = tuple(member for member in members if _is_sequence(member))
    for member in sorted(members, key=lambda member: not _is_instance(value, member)):
        try:
            return _form(value, member, where, part_form)
        except TypeError:
            continue
    return _expected(value, where, " or ".join(str(getattr(m, "__name__", m)) for m in members))


def _sequence(value: Any, declared: Any, where: str, part_form: PartForm) -> list[Any]:
    elements = typing.get_args(declared) if _is_sequence(declared) else ()
    if typing.get_origin(declared) is tuple and Ellipsis not in elements:
        if len(elements) != len(value):
            _expected(value, where, f"{len(elements)} values")
    else:
        elements = (elements[0] if elements else Any,) * len(value)
    pairs = zip(value, elements, strict=True)
    return [canonical_form(v, element, f"{where}[{i}]", part_form) for i, (v, element) in enumerate(pairs)]


def _mapping(value: Mapping[Any, Any], declared: Any, where: str, part_form: PartForm) -> dict[str, Any]:
    if not all(isinstance(name, str) for name in value):
        _expected(value, where, "string keys")
    arguments = typing.get_args(declared)
    element = arguments[1] if len(arguments) == 2 else Any
    return {name: canonical_form(v, element, f"{where}[{name!r}]", part_form) for name, v in value.items()}


def _bare(declared: Any) -> Any:
    """Without ``Annotated`` and ``NewType``."""
    while True:
        if typing.get_origin(declared) is typing.Annotated:
            declared = typing.get_args(declared)[0]
        elif isinstance(declared, typing.NewType):
            declared = declared.__supertype__
        else:
            return declared


def _is_sequence(declared: Any) -> bool:
    origin = typing.get_origin(_bare(declared))
    return isinstance(origin, type) and origin is not str and issubclass(origin, collections.abc.Sequence)


def _is_instance(value: Any, member: Any) -> bool:
    member = _bare(member)
    if typing.get_origin(member) is Literal:
        return any(choice == value and type(choice) is type(value) for choice in typing.get_args(member))
    kind = typing.get_origin(member) or member
    if not isinstance(kind, type):
        return False
    if kind in (bool, int, float):
        return type(value) is kind
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that cannot be asked; only instances of dataclasses fit one, and have a form already
        return False


def _expected(value: Any, where: str, what: str) -> Any:
    raise TypeError(f"{where} = {value!r} has no canonical form: its class declares {what}")


def _resolved(annotation: Any, owner: type) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, dict(vars(sys.modules[owner.__module__])), dict(vars(owner)))
    except Exception:
        return Any
