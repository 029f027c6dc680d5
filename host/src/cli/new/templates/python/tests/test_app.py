import unittest

from app import Guest, Welcome, handle


class Greeting(unittest.TestCase):
    def test_greets_by_name(self):
        self.assertEqual(handle(Guest(name="Ada")), Welcome(greeting="Hello, Ada!"))


if __name__ == "__main__":
    unittest.main()
