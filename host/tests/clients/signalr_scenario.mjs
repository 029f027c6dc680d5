// What a SignalR client does with the hub: the same in Node and in a browser, where this is sent as text; so
// it needs nothing but its arguments.
export async function scenario(signalR, url) {
    const check = (what, seen, wanted) => {
        if (JSON.stringify(seen) !== JSON.stringify(wanted)) {
            throw new Error(`${what}: ${JSON.stringify(seen)}, and not ${JSON.stringify(wanted)}`);
        }
    };
    const connection = new signalR.HubConnectionBuilder()
        .withUrl(`${url}/functions`)
        .configureLogging(signalR.LogLevel.Warning)
        .build();
    await connection.start();
    // Lines until the end, or until `enough` says so: then the stream is given up, which cancels the call.
    const stream = (args, enough = () => false) =>
        new Promise((resolve) => {
            const lines = [];
            const subscription = connection.stream('FunctionHandler', ...args).subscribe({
                next: (line) => {
                    lines.push(line);
                    if (enough(line)) {
                        subscription.dispose();
                        resolve({ lines, end: 'given up' });
                    }
                },
                complete: () => resolve({ lines, end: 'complete' }),
                error: (error) => resolve({ lines, end: error.message }),
            });
        });
    const numbers = ({ lines, end }) => [lines.map((line) => line.split(' ')[0]), end];

    const ticks = ['ticks', 'dev', '', { count: 5, everyMs: 20 }];
    check('lines', numbers(await stream(ticks)), [['0', '1', '2', '3', '4'], 'complete']);
    const both = await Promise.all([stream(ticks), stream(['exe-ticks', 'dev', '1.0', '{"count":3,"everyMs":20}', false, 'exe'])]);
    check('two at once', both.map((one) => one.lines.length), [5, 3]);
    const failed = await stream(['return-error', 'dev', 'latest', '"why"']);
    if (!failed.end.includes('function_failed: ')) throw new Error(`a failure: ${failed.end}`);
    const unknown = await stream(['nothing', 'dev']);
    if (!unknown.end.includes('function_not_found: ')) throw new Error(`an unknown function: ${unknown.end}`);
    const invoked = await connection.invoke('Other').catch((error) => error.message);
    if (!String(invoked).includes("Unknown hub method 'Other'")) throw new Error(`an unknown method: ${invoked}`);
    check('given up', await stream(['sleep', 'dev', '', 60000], () => true), { lines: ['asleep'], end: 'given up' });
    check('after that', numbers(await stream(ticks)), [['0', '1', '2', '3', '4'], 'complete']);
    await connection.stop();
}
