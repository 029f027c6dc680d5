"""Modules of the standard library that others import only when they are used, which is too late in a component."""

# ruff: noqa: F401

import _strptime
import ast
import bisect
import calendar
import copy
import encodings.ascii
import encodings.base64_codec
import encodings.cp1252
import encodings.hex_codec
import encodings.idna
import encodings.latin_1
import encodings.punycode
import encodings.raw_unicode_escape
import encodings.unicode_escape
import encodings.utf_7
import encodings.utf_8_sig
import encodings.utf_16
import encodings.utf_16_be
import encodings.utf_16_le
import encodings.utf_32
import fractions
import heapq
import html.entities
import inspect
import linecache
import locale
import numbers
import random
import string
import stringprep
import textwrap
import tokenize
import traceback
import unicodedata
import urllib.parse
