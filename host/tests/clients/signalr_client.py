"""A SignalR client in Python: `python signalr_client.py URL`."""

import asyncio
import sys

from pysignalr.client import SignalRClient
from pysignalr.messages import CancelInvocationMessage


class Stream:
    """A call, and what came of it."""

    def __init__(self):
        self.lines = []
        self.first = asyncio.Event()
        self.end = asyncio.get_running_loop().create_future()

    async def line(self, line):
        self.lines.append(line)
        self.first.set()

    async def complete(self, _):
        self.end.set_result(None)

    async def failed(self, message):
        self.end.set_result(message.error)


async def start(client, *arguments):
    stream = Stream()
    await client.stream('FunctionHandler', list(arguments), stream.line, stream.complete, stream.failed)
    return stream


async def use(client):
    ticks = await start(client, 'ticks', 'dev', '', {'count': 5, 'everyMs': 20})
    other = await start(client, 'exe-ticks', 'dev', '1.0', {'count': 3, 'everyMs': 20}, False, 'exe')
    assert await ticks.end is None and await other.end is None
    assert [line.split()[0] for line in ticks.lines] == ['0', '1', '2', '3', '4'], ticks.lines
    assert len(other.lines) == 3, other.lines

    failed = await start(client, 'return-error', 'dev', '', '"why"')
    assert (await failed.end).startswith('function_failed: ')

    sleep = await start(client, 'sleep', 'dev', '', 60000)
    await sleep.first.wait()
    assert sleep.lines == ['asleep'], sleep.lines
    # The library reads and writes this message, but has no call that sends it.
    (call,) = client._stream_handlers
    await client._transport.send(CancelInvocationMessage(call, {}))
    assert (await sleep.end).startswith('cancelled: ')


async def main(url):
    client = SignalRClient(f'{url}/functions')
    opened = asyncio.Event()

    async def on_open():
        opened.set()

    client.on_open(on_open)
    running = asyncio.create_task(client.run())
    used = asyncio.create_task(opened.wait())
    await asyncio.wait({running, used}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    await use(client)
    running.cancel()
    await asyncio.wait({running})


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 60))
