import unittest
from datetime import datetime, timezone

from app import Request, summarise

LOG = """\
192.0.2.1 - - [31/Jan/2026:12:00:01 +0000] "GET /tea?x=1 HTTP/1.1" 200 100 "-" "curl/8"
192.0.2.1 - - [31/Jan/2026:12:30:00 +0000] "GET /tea HTTP/1.1" 404 20 "-" "curl/8"
192.0.2.2 - ada [31/Jan/2026:15:00:00 +0200] "POST /order HTTP/1.1" 500 - "-" "curl/8"
no such line
"""


class Summing(unittest.TestCase):
    def test_paths_errors_and_hours(self):
        report = summarise(Request(log=LOG))
        self.assertEqual((report.requests, report.unread), (3, 1))
        self.assertEqual(report.statuses, {"200": 1, "404": 1, "500": 1})
        tea = report.paths[0]
        self.assertEqual((tea.path, tea.requests, tea.errors, tea.bytes), ("/tea", 2, 1, 120))
        self.assertEqual(report.busiest_hour, datetime(2026, 1, 31, 12, tzinfo=timezone.utc))
        self.assertEqual(report.sizes.total, 120)

    def test_nothing_is_a_report_too(self):
        report = summarise(Request(log="", since=datetime(2026, 1, 1)))
        self.assertEqual((report.requests, report.busiest_hour, report.sizes), (0, None, None))

    def test_what_is_before_does_not_count(self):
        self.assertEqual(summarise(Request(log=LOG, since=datetime(2026, 1, 31, 12, 45))).requests, 1)


if __name__ == "__main__":
    unittest.main()
