"""Greets whom it is told to: {"name": "Ada"} in, {"greeting": "Hello, Ada!"} out."""

from dataclasses import dataclass

import sharpfaas


@dataclass
class Guest:
    name: str


@dataclass
class Welcome:
    greeting: str


@sharpfaas.function
def handle(guest: Guest) -> Welcome:
    if not guest.name:
        raise sharpfaas.Error("a guest needs a name")
    print(f"greeting {guest.name}")
    return Welcome(greeting=f"Hello, {guest.name}!")
