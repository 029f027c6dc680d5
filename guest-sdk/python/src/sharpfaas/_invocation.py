"""The context of the call."""

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Invocation:
    """What a call knows of itself."""

    id: str
    """This call; no other has the same. It stands in the host's log and history."""
    caller_id: str | None
    """Who calls, as the caller said it; not checked by the host."""
    function_name: str
    """The name the function was called by."""
    lane: str
    """The lane it runs in, such as ``dev``."""
    version: str
    """The exact version that runs, ``major.minor``, whatever the caller selected it by."""
    parameters: tuple[tuple[str, str], ...]
    """The call's further parameters in their order; a name may stand there more than once."""
    deadline: float | None
    """When the host ends the call, by the clock of ``time.monotonic``; ``None``: it does not."""

    def parameter(self, name: str) -> str | None:
        """The first parameter of that name, upper and lower case being the same."""
        wanted = name.lower()
        return next((value for key, value in self.parameters if key.lower() == wanted), None)

    def remaining(self) -> float | None:
        """How many seconds are left until the deadline, 0 when it has passed; ``None`` when there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


def invocation() -> Invocation:
    """The context of the call that is running.

    Raises a ``RuntimeError`` outside a host, so in tests: give what a handler reads from it to a function of its own.
    """
    try:
        from wit_world.imports import invocation as host
    except ImportError:
        raise RuntimeError("there is no invocation outside a host") from None
    context = host.current()
    left = context.deadline_ms
    return Invocation(
        id=context.invocation_id,
        caller_id=context.caller_id,
        function_name=context.function_name,
        lane=context.lane,
        version=context.version,
        parameters=tuple((key, value) for key, value in context.parameters),
        deadline=None if left is None else time.monotonic() + left / 1000,
    )
