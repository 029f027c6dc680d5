"""The decorator, and what the host calls."""

import inspect
import sys
import traceback
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar, get_type_hints

from ._payload import Misfit, decode, encode

F = TypeVar("F", bound=Callable[..., Any])


class Error(Exception):
    """An error that can be expected: the caller reads its text, and no traceback is printed."""


def function(handler: F) -> F:
    """Makes a function of the module's top level the one that this component exports."""
    _check(handler)
    module = handler.__globals__
    if "WitWorld" in module:
        raise TypeError(f"a component exports one function, and {module['WitWorld'].handler.__name__} is it already")
    hints = None

    def execute(self: Any, payload: str) -> str:
        nonlocal hints
        try:
            if hints is None:
                # Not at once: annotations may name what the module defines further down.
                hints = get_type_hints(handler)
            arguments = [decode(payload, hints.get(name, Any)) for name in inspect.signature(handler).parameters]
            return encode(handler(*arguments))
        except (Error, Misfit) as error:
            raise _err(_told(error)) from None
        except Exception as error:
            traceback.print_exc()
            raise _err(_told(error)) from None
        finally:
            # What began a line and did not end it; nothing else would, as the instance ends with the call.
            sys.stdout.flush()

    if find_spec("wit_world") is not None:
        # A component is being built: what is not loaded by now never will be.
        from . import _preload  # noqa: F401
    # componentize-py looks for a class of the world's name in the module.
    module["WitWorld"] = type("WitWorld", (), {"execute": execute, "handler": staticmethod(handler)})
    return handler


def _check(handler: Any) -> None:
    if not inspect.isfunction(handler) or "." in handler.__qualname__:
        raise TypeError("@sharpfaas.function stands on a function of a module's top level")
    if inspect.iscoroutinefunction(handler) or inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise TypeError(f"{handler.__name__} must come to its result by itself: write it without async and yield")
    parameters = list(inspect.signature(handler).parameters.values())
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) > 1 or any(parameter.kind not in plain for parameter in parameters):
        raise TypeError(
            f"{handler.__name__} takes at most one argument, the payload: put all it needs into one dataclass; "
            "the call's context comes from sharpfaas.invocation()"
        )


def _err(text: str) -> Exception:
    from componentize_py_types import Err

    return Err(text)


def _told(error: BaseException) -> str:
    """The texts of an error and of what caused it, each after a colon."""
    texts: list[str] = []
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        text = _text(following)
        if not any(text in said for said in texts):
            texts.append(text)
        following = following.__cause__
    return ": ".join(texts)


def _text(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"{text}: a component imports only while it is built; write 'import {error.name}' at the top of the module"
    # The text of these is what was looked up, and not what happened.
    return f"{type(error).__name__}: {text}" if isinstance(error, KeyError) else text or type(error).__name__
