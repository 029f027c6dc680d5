"""Write functions for the sharpfaas function host.

A function is a Python function with a decorator on it. Its argument is made of the JSON payload of the call, as its
annotation says; its result is encoded as JSON; and what it prints is the call's console, which callers can watch live::

    from dataclasses import dataclass

    import sharpfaas

    @dataclass
    class Order:
        article: str
        quantity: int
        price: float

    @dataclass
    class Receipt:
        total: float

    @sharpfaas.function
    def handle(order: Order) -> Receipt:
        print(f"{order.quantity} × {order.article}")
        return Receipt(total=order.quantity * order.price)

The decorated function stays an ordinary one, so that tests can call it.

The argument may be annotated with dataclasses, ``TypedDict``, enums, ``datetime`` and its kin, ``Decimal``, ``UUID``, lists,
tuples, sets, dicts, unions and ``Literal`` of them, the plain types of JSON, ``Any``, or not at all; :class:`Text` is the
payload as it came. A function without an argument ignores the payload, and an empty payload is ``None``. A payload
that does not fit ends the call with an error that names the place.

An exception ends the call with ``function_failed``: the caller reads its text and those of its causes, and the traceback
is printed on standard error, but that of an :class:`Error`, which is one that can be expected.

Each call runs in an instance of its own: variables hold nothing from one call to the next. What a module does while it
is imported is done once, when the component is built, and not again; so import there all that the handler needs,
as no file can be read when it runs.
"""

from ._function import Error, function
from ._invocation import Invocation, invocation
from ._payload import Text

__all__ = ["Error", "Invocation", "Text", "function", "invocation"]
