"""Payloads in, results out: JSON, and the types that annotations name."""

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict
from uuid import UUID


class Text(str):
    """A payload or a result as it is, without JSON around it."""


class Misfit(Exception):
    """A payload that does not fit, or a result that JSON can't hold; the text is for the caller."""


class _Mismatch(Exception):
    """Where a value does not fit, and why."""

    def __init__(self, place: str, why: str):
        super().__init__(why)
        self.place = place
        self.why = why


def decode(payload: str, hint: Any) -> Any:
    """The payload, as a value of the type that `hint` names."""
    if hint is Text:
        return Text(payload)
    try:
        value = json.loads(payload) if payload.strip() else None
    except ValueError as error:
        raise Misfit(f"the payload is not JSON: {error}") from None
    except RecursionError:
        raise Misfit("the payload is not JSON that can be read: it is nested too deep") from None
    try:
        return _fit(value, hint, "")
    except _Mismatch as mismatch:
        if not payload.strip():
            raise Misfit("the payload is empty: this function takes JSON") from None
        at = f" at {mismatch.place.lstrip('.')}" if mismatch.place else ""
        raise Misfit(f"the payload does not fit{at}: {mismatch.why}") from None


def encode(result: Any) -> str:
    """The result as JSON; a :class:`Text` as it is."""
    if isinstance(result, Text):
        return str(result)
    try:
        return json.dumps(result, default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise Misfit(f"the result cannot be written as JSON: {error}") from None


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"it holds a value of type {type(value).__name__}")


def _named(value: Any) -> str:
    """What a value is, in the words of JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the string {json.dumps(value[:40], ensure_ascii=False)}"
        case list():
            return "an array"
        case _:
            return "an object"


def _fit(value: Any, hint: Any, at: str) -> Any:
    def misfit(wanted: str) -> _Mismatch:
        return _Mismatch(at, f"{_named(value)}, where {wanted} belongs")

    if hint is Any or hint is object or isinstance(hint, typing.TypeVar):
        return value
    if hint is None or hint is type(None):
        if value is None:
            return None
        raise misfit("null")
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired):
        return _fit(value, arguments[0], at)
    if origin in (Union, types.UnionType):
        return _fit_union(value, arguments, at)
    if origin is Literal:
        # True == 1, but they are not the same.
        if any(value == wanted and type(value) is type(wanted) for wanted in arguments):
            return value
        raise misfit("one of " + ", ".join(json.dumps(wanted) for wanted in arguments))
    if origin is not None:
        return _fit_container(value, origin, arguments, at, misfit)
    if isinstance(hint, type):
        return _fit_class(value, hint, at, misfit)
    raise TypeError(f"a payload can't be made a {hint!r}")


def _fit_union(value: Any, choices: tuple[Any, ...], at: str) -> Any:
    mismatches = []
    for choice in choices:
        try:
            return _fit(value, choice, at)
        except _Mismatch as mismatch:
            mismatches.append(mismatch)
    # The one that got furthest is what was meant.
    raise max(mismatches, key=lambda mismatch: len(mismatch.place))


def _fit_container(value: Any, origin: Any, arguments: tuple[Any, ...], at: str, misfit: Any) -> Any:
    if not isinstance(origin, type):
        raise TypeError(f"a payload can't be made a {origin!r}")
    if dataclasses.is_dataclass(origin):
        return _fit_class(value, origin, at, misfit)
    if issubclass(origin, tuple):
        if not isinstance(value, list):
            raise misfit("an array")
        if len(arguments) == 2 and arguments[1] is ...:
            return tuple(_fit(item, arguments[0], f"{at}[{index}]") for index, item in enumerate(value))
        if len(value) != len(arguments):
            raise _Mismatch(at, f"an array of {len(value)}, where one of {len(arguments)} belongs")
        return tuple(_fit(item, hint, f"{at}[{index}]") for index, (item, hint) in enumerate(zip(value, arguments)))
    if issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise misfit("an object")
        keys, values = arguments
        return {_fit_key(key, keys, at): _fit(item, values, f"{at}.{key}") for key, item in value.items()}
    if not isinstance(value, list):
        raise misfit("an array")
    items = [_fit(item, arguments[0], f"{at}[{index}]") for index, item in enumerate(value)]
    return frozenset(items) if issubclass(origin, frozenset) else set(items) if issubclass(origin, set) else items


def _fit_key(key: str, hint: Any, at: str) -> Any:
    if hint in (str, Any):
        return key
    if hint is int:
        try:
            return int(key)
        except ValueError:
            raise _Mismatch(f"{at}.{key}", f"the name {json.dumps(key)}, where a whole number belongs") from None
    return _fit(key, hint, f"{at}.{key}")


# Types that are written as a string, how they are read, and what such a string is called.
_WRITTEN: dict[type, tuple[Any, str]] = {
    datetime: (datetime.fromisoformat, "a date and time such as 2026-01-31T12:00:00Z"),
    date: (date.fromisoformat, "a date such as 2026-01-31"),
    time: (time.fromisoformat, "a time such as 12:00:00"),
    UUID: (UUID, "a UUID"),
}


def _fit_class(value: Any, hint: type, at: str, misfit: Any) -> Any:
    if hint is bool:
        if isinstance(value, bool):
            return value
        raise misfit("true or false")
    if hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
        raise misfit("a whole number")
    if hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        raise misfit("a number")
    if hint is str or hint is Text:
        if isinstance(value, str):
            return hint(value)
        raise misfit("a string")
    if hint in (list, dict):
        if isinstance(value, hint):
            return value
        raise misfit("an array" if hint is list else "an object")
    if hint in (tuple, set, frozenset):
        if isinstance(value, list):
            return hint(value)
        raise misfit("an array")
    if hint is Decimal:
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            try:
                return Decimal(str(value))
            except ArithmeticError:
                pass
        raise misfit("a decimal number")
    if hint in _WRITTEN:
        read, called = _WRITTEN[hint]
        if isinstance(value, str):
            try:
                return read(value)
            except ValueError:
                pass
        raise misfit(called)
    if issubclass(hint, enum.Enum):
        try:
            return hint(value)
        except ValueError:
            raise misfit("one of " + ", ".join(json.dumps(member.value) for member in hint)) from None
    if is_typeddict(hint):
        return _fit_members(value, get_type_hints(hint), hint.__required_keys__, at, misfit)
    if dataclasses.is_dataclass(hint):
        fields = [field for field in dataclasses.fields(hint) if field.init]
        hints = get_type_hints(hint)
        missing = dataclasses.MISSING
        required = {field.name for field in fields if field.default is missing and field.default_factory is missing}
        return hint(**_fit_members(value, {field.name: hints[field.name] for field in fields}, required, at, misfit))
    raise TypeError(f"a payload can't be made a {hint.__name__}")


def _fit_members(value: Any, hints: dict[str, Any], required: Any, at: str, misfit: Any) -> dict[str, Any]:
    """The members that are known; others are left out."""
    if not isinstance(value, dict):
        raise misfit("an object")
    lacking = [name for name in hints if name in required and name not in value]
    if lacking:
        raise _Mismatch(at, f"it lacks {', '.join(lacking)}")
    return {name: _fit(value[name], hint, f"{at}.{name}") for name, hint in hints.items() if name in value}
