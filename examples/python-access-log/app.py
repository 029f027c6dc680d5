"""Sums up a web server's access log, in the combined format: {"log": "…"} in; for each path how often it was asked, how
many answers were errors and how many bytes went out, and the busiest hour and clients out."""

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone
from statistics import mean, quantiles

import sharpfaas

LINE = re.compile(
    r'(?P<client>\S+) \S+ \S+ \[(?P<at>[^\]]+)\] "(?P<method>[A-Z]+) (?P<target>\S+)[^"]*" '
    r"(?P<status>\d{3}) (?P<size>\d+|-)"
)


@dataclass
class Request:
    log: str
    since: datetime | None = None
    """Lines from before it don't count."""
    most: int = 10
    """How many paths and clients are listed."""


@dataclass
class Sizes:
    total: int
    mean: float
    p95: float


@dataclass
class Path:
    path: str
    requests: int = 0
    errors: int = 0
    bytes: int = 0


@dataclass
class Report:
    requests: int
    unread: int
    """Lines that are in another format."""
    statuses: dict[str, int]
    paths: list[Path]
    clients: dict[str, int]
    busiest_hour: datetime | None
    sizes: Sizes | None


@dataclass
class Totals:
    statuses: Counter[str] = field(default_factory=Counter)
    clients: Counter[str] = field(default_factory=Counter)
    hours: Counter[datetime] = field(default_factory=Counter)
    sizes: list[int] = field(default_factory=list)


@sharpfaas.function
def summarise(request: Request) -> Report:
    if not 1 <= request.most <= 1000:
        raise sharpfaas.Error("most must be from 1 to 1000")
    since = request.since
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=timezone.utc)
    paths: dict[str, Path] = {}
    totals = Totals()
    unread = 0
    for line in request.log.splitlines():
        read = LINE.match(line)
        try:
            at = datetime.strptime(read["at"], "%d/%b/%Y:%H:%M:%S %z") if read else None
        except ValueError:
            at = None
        if read is None or at is None:
            unread += 1 if line.strip() else 0
            continue
        if since is not None and at < since:
            continue
        add(read, at, paths, totals)
    requests = len(totals.sizes)
    print(f"{requests} requests, {len(paths)} paths, {unread} lines not read")
    return Report(
        requests=requests,
        unread=unread,
        statuses=dict(sorted(totals.statuses.items())),
        paths=sorted(paths.values(), key=lambda path: (-path.requests, path.path))[: request.most],
        clients=dict(totals.clients.most_common(request.most)),
        busiest_hour=max(totals.hours, key=lambda hour: (totals.hours[hour], -hour.timestamp()), default=None),
        sizes=sizes(totals.sizes),
    )


def add(read: re.Match[str], at: datetime, paths: dict[str, Path], totals: Totals) -> None:
    size = 0 if read["size"] == "-" else int(read["size"])
    name = read["target"].split("?", 1)[0]
    path = paths.setdefault(name, Path(name))
    path.requests += 1
    path.errors += read["status"] >= "400"
    path.bytes += size
    totals.statuses[read["status"]] += 1
    totals.clients[read["client"]] += 1
    totals.hours[at.astimezone(timezone.utc).replace(minute=0, second=0)] += 1
    totals.sizes.append(size)


def sizes(of: list[int]) -> Sizes | None:
    if not of:
        return None
    p95 = quantiles(of, n=20, method="inclusive")[-1] if len(of) > 1 else of[0]
    return Sizes(total=sum(of), mean=round(mean(of), 1), p95=round(p95, 1))
