import enum
import unittest
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, Literal, NotRequired, TypedDict
from uuid import UUID

from sharpfaas._payload import Misfit, Text, decode, encode


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


@dataclass
class Line:
    sku: str
    price: float
    size: Size = Size.SMALL


@dataclass
class Order:
    lines: list[Line]
    note: str | None = None
    tags: set[str] = field(default_factory=set)


class Address(TypedDict):
    city: str
    zip: NotRequired[int]


class Decoding(unittest.TestCase):
    def fits(self, payload: str, hint: Any, value: Any) -> None:
        got = decode(payload, hint)
        self.assertEqual(got, value)
        self.assertIs(type(got), type(value))

    def misfit(self, payload: str, hint: Any, *words: str) -> None:
        with self.assertRaises(Misfit) as caught:
            decode(payload, hint)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_dataclasses_with_all_in_them(self):
        payload = '{"lines": [{"sku": "a", "price": 2, "size": "l", "more": 1}], "tags": ["x", "x"]}'
        self.fits(payload, Order, Order([Line("a", 2.0, Size.LARGE)], None, {"x"}))

    def test_other_types(self):
        self.fits("[1, 2]", list[int], [1, 2])
        self.fits("2.0", int, 2)
        self.fits('[1, "a"]', tuple[int, str], (1, "a"))
        self.fits('{"1": true}', dict[int, bool], {1: True})
        self.fits('"b"', Literal["a", "b"], "b")
        self.fits('"1.10"', Decimal, Decimal("1.10"))
        self.fits('"2026-01-31T12:00:00Z"', datetime, datetime(2026, 1, 31, 12, tzinfo=timezone.utc))
        self.fits('"12345678-1234-5678-1234-567812345678"', UUID, UUID("12345678-1234-5678-1234-567812345678"))
        self.fits('{"city": "Oslo"}', Address, {"city": "Oslo"})
        self.fits('{"a": [null]}', Any, {"a": [None]})
        self.fits('"7"', int | str, "7")

    def test_an_empty_payload_is_none(self):
        self.fits("", str | None, None)
        self.fits(" \n", Any, None)
        self.misfit("", Order, "the payload is empty: this function takes JSON")

    def test_text_is_the_payload_as_it_came(self):
        self.fits("{not json", Text, Text("{not json"))

    def test_what_does_not_fit_says_where_and_why(self):
        self.misfit('{"lines": [{"sku": "a", "price": "x"}]}', Order, "at lines[0].price", 'the string "x"', "a number")
        self.misfit('{"lines": [{}]}', Order, "at lines[0]", "lacks sku, price")
        self.misfit('{"lines": [{"sku": "a", "price": 1, "size": "m"}]}', Order, '"s", "l"')
        self.misfit("[1, true]", list[int], "at [1]", "true", "a whole number")
        self.misfit("1", Literal[True], "one of true")
        self.misfit("[1]", tuple[int, int], "an array of 1, where one of 2 belongs")
        self.misfit('"today"', datetime, "a date and time")
        self.misfit('{"city": 1}', Address, "at city")
        self.misfit("{", Order, "the payload is not JSON")
        self.misfit("[" * 100_000, Any, "nested too deep")


class Encoding(unittest.TestCase):
    def test_values_of_all_kinds(self):
        order = Order([Line("ü", 1.5, Size.LARGE)], tags={"x"})
        self.assertEqual(
            encode(order), '{"lines":[{"sku":"ü","price":1.5,"size":"l"}],"note":null,"tags":["x"]}'
        )
        self.assertEqual(encode([Decimal("1.10"), datetime(2026, 1, 31)]), '["1.10","2026-01-31T00:00:00"]')
        self.assertEqual(encode(None), "null")
        self.assertEqual(encode(Text("as it is")), "as it is")

    def test_what_json_can_not_hold_is_said(self):
        endless: list[Any] = []
        endless.append(endless)
        for value in (object(), float("nan"), endless, {(1, 2): 3}):
            with self.assertRaisesRegex(Misfit, "the result cannot be written as JSON"):
                encode(value)


if __name__ == "__main__":
    unittest.main()
