// What a function's code imports. Types and documentation are in index.d.ts.

import { current } from '#host';

const NO_WAITING = 'the handler is async, and the engine quickjs waits for nothing: build it with the engine starlingmonkey';

/** An error that the function means to make: its text is for the caller, and no stack is printed. */
export class Failure extends Error {
    name = 'Failure';
}

/** What a call knows of itself. */
export function invocation() {
    const context = current();
    // A number or a BigInt, by the engine.
    const left = context.deadlineMs ?? undefined;
    const deadline = left === undefined ? undefined : Date.now() + Number(left);
    return {
        id: context.invocationId,
        callerId: context.callerId ?? undefined,
        functionName: context.functionName,
        lane: context.lane,
        version: context.version,
        parameters: context.parameters,
        deadline: deadline === undefined ? undefined : new Date(deadline),
        parameter(name) {
            const wanted = name.toLowerCase();
            return this.parameters.find(([key]) => key.toLowerCase() === wanted)?.[1];
        },
        remaining() {
            return deadline === undefined ? undefined : Math.max(0, deadline - Date.now());
        },
    };
}

/** A handler of JSON, as the export `execute`. */
export function handle(handler) {
    return execute(handler, parse, stringify);
}

/** A handler of text, as the export `execute`. */
export function handleText(handler) {
    return execute(handler, (payload) => payload, asText);
}

/** Answers with a promise only where the handler does: an engine may know no other functions than plain ones. */
function execute(handler, decode, encode) {
    if (typeof handler !== 'function') {
        throw new TypeError('the handler must be a function, as in handle((order) => ({ total: order.price }))');
    }
    return (payload) => {
        try {
            const result = handler(decode(payload));
            if (typeof result?.then !== 'function') return encode(result);
            // Where nothing can happen later, no promise comes to anything.
            if (typeof setTimeout !== 'function') throw new Failure(NO_WAITING);
            return Promise.resolve(result).then(encode).catch(fail);
        } catch (error) {
            return fail(error);
        }
    };
}

function parse(payload) {
    if (payload.trim() === '') {
        return null;
    }
    try {
        return JSON.parse(payload);
    } catch (error) {
        throw new Failure(`the payload is not JSON: ${error.message}`);
    }
}

function stringify(result) {
    let text;
    try {
        text = JSON.stringify(result === undefined ? null : result);
    } catch (error) {
        throw new Failure(`the result cannot be written as JSON: ${error.message}`);
    }
    if (text === undefined) {
        throw new Failure(`the result cannot be written as JSON: it is a ${typeof result}`);
    }
    return text;
}

function asText(result) {
    if (typeof result !== 'string') {
        throw new Failure(`the result must be a string, and is ${result === null ? 'null' : `a ${typeof result}`}`);
    }
    return result;
}

/** Ends the call with the error's text; the component's interface takes no other kind of value. */
function fail(error) {
    if (error instanceof Error && !(error instanceof Failure)) {
        console.error(error.stack ? `${error}\n${error.stack}` : `${error}`);
    }
    throw told(error);
}

/** The text of an error and its causes, each after a colon. */
function told(error) {
    let text = '';
    const seen = new Set();
    for (let next = error; next !== undefined && next !== null && !seen.has(next); next = next.cause) {
        seen.add(next);
        const own = next instanceof Error ? next.message || next.name : String(next);
        if (!text.includes(own)) {
            text += text === '' ? own : `: ${own}`;
        }
    }
    return text === '' ? String(error) : text;
}
