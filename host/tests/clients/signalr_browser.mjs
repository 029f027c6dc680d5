// The public SignalR client, and what browsers have of their own, in Chromium: `node signalr_browser.mjs URL`.
import { readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';
import { scenario } from './signalr_scenario.mjs';

const library = new URL('node_modules/@microsoft/signalr/dist/browser/signalr.js', import.meta.url);
const url = process.argv[2];

// Server-sent events until the browser gives up by itself, and a WebSocket that it closes.
async function own(url) {
    const call = { functionName: 'ticks', lane: 'dev', payload: { count: 4, everyMs: 20 } };
    const started = await fetch(`${url}/api/function/runfunction`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json', Prefer: 'respond-async' },
        body: JSON.stringify(call),
    });
    const { invocationId } = await started.json();
    const source = new EventSource(`${url}/api/invocations/${invocationId}/output`);
    const seen = [];
    source.addEventListener('output', ({ lastEventId }) => seen.push(lastEventId));
    source.addEventListener('completed', ({ data }) => seen.push(JSON.parse(data).status));
    await new Promise((resolve) => {
        source.onerror = () => source.readyState === EventSource.CLOSED && resolve();
    });
    const socket = new WebSocket(`${url.replace('http', 'ws')}/functions`);
    const closed = new Promise((resolve) => (socket.onclose = resolve));
    socket.onopen = () => socket.send(JSON.stringify(call));
    await new Promise((resolve) => {
        socket.onmessage = ({ data }) => JSON.parse(data).event === 'completed' && resolve();
    });
    socket.close();
    const { code, wasClean } = await closed;
    return JSON.stringify([...seen, code, wasClean]);
}

const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-sync'],
});
try {
    const page = await browser.newPage({ bypassCSP: true });
    page.on('console', (message) => console.error(message.text()));
    // Any page of the server's own origin will do to run scripts in.
    await page.goto(`${url}/healthz`);
    await page.evaluate(readFileSync(library, 'utf8'));
    await page.evaluate(`(${scenario})(signalR, '${url}')`);
    const seen = await page.evaluate(`(${own})('${url}')`);
    if (seen !== JSON.stringify(['0', '1', '2', '3', 'succeeded', 1000, true])) throw new Error(seen);
} finally {
    await browser.close();
}
