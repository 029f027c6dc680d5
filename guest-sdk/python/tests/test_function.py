import contextlib
import io
import sys
import types
import unittest
from dataclasses import dataclass
from unittest import mock

import sharpfaas


class Err(Exception):
    """As componentize-py has it in a component."""

    def __init__(self, value: str):
        super().__init__(value)
        self.value = value


def called(source: str, payload: str) -> tuple[str, str]:
    """What a module's function comes to (`!` before an error), and what it says on standard error."""
    module = {"__name__": "app", "sharpfaas": sharpfaas, "dataclass": dataclass}
    exec(compile(source, "app.py", "exec"), module)
    host = types.ModuleType("componentize_py_types")
    host.Err = Err
    said = io.StringIO()
    with mock.patch.dict(sys.modules, {"componentize_py_types": host}), contextlib.redirect_stderr(said):
        try:
            return module["WitWorld"]().execute(payload), said.getvalue()
        except Err as error:
            return f"!{error.value}", said.getvalue()


class Function(unittest.TestCase):
    def test_annotations_may_name_what_comes_later(self):
        source = """
@sharpfaas.function
def handle(order: "Order"): return order.count + 1
class Order: pass
Order.__annotations__ = {"count": int}
Order = dataclass(Order)
"""
        self.assertEqual(called(source, '{"count": 1}'), ("2", ""))

    def test_without_arguments_and_annotations(self):
        self.assertEqual(called("@sharpfaas.function\ndef f(): return 'x'", "not json"), ('"x"', ""))
        self.assertEqual(called("@sharpfaas.function\ndef f(x): return x", "[1]"), ("[1]", ""))
        self.assertEqual(called("@sharpfaas.function\ndef f(x): pass", "1"), ("null", ""))

    def test_an_error_that_was_expected_has_no_traceback(self):
        source = "@sharpfaas.function\ndef f(x): raise sharpfaas.Error('sold out') from ValueError('of 3')"
        self.assertEqual(called(source, "1"), ("!sold out: of 3", ""))

    def test_another_has_one(self):
        told, said = called("@sharpfaas.function\ndef f(x): return x['y']", "{}")
        self.assertEqual(told, "!KeyError: 'y'")
        self.assertIn("Traceback", said)

    def test_an_import_that_comes_too_late_says_what_to_do(self):
        told, _ = called("@sharpfaas.function\ndef f(x): import no_such_module", "1")
        self.assertIn("write 'import no_such_module' at the top of the module", told)

    def test_what_could_not_work_is_refused(self):
        for source, words in [
            ("async def f(x): pass", "without async"),
            ("def f(x): yield x", "without async and yield"),
            ("def f(x, y): pass", "at most one argument"),
            ("def f(*x): pass", "at most one argument"),
            ("class C:\n  @sharpfaas.function\n  def f(self): pass", "top level"),
        ]:
            source = source if "@" in source else f"@sharpfaas.function\n{source}"
            with self.assertRaisesRegex(TypeError, words):
                called(source, "1")
        with self.assertRaisesRegex(TypeError, "one function, and f is it"):
            called("@sharpfaas.function\ndef f(): pass\n@sharpfaas.function\ndef g(): pass", "1")

    def test_there_is_no_invocation_outside_a_host(self):
        with self.assertRaisesRegex(RuntimeError, "outside a host"):
            sharpfaas.invocation()


if __name__ == "__main__":
    unittest.main()
