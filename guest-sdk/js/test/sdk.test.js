import assert from 'node:assert/strict';
import test, { mock } from 'node:test';

import { consoleOf, inspect, utf8 } from '../console.js';
import { Failure, handle, handleText, invocation } from '../index.js';

/** What a call comes to, and what it says on standard error. */
async function called(execute, payload) {
    const said = mock.method(console, 'error', () => {});
    try {
        return [await execute(payload), said.mock.callCount()];
    } catch (error) {
        assert.equal(typeof error, 'string');
        return [{ error }, said.mock.callCount()];
    } finally {
        said.mock.restore();
    }
}

test('JSON in, JSON out', async () => {
    const next = handle((order) => ({ total: order.price * 2 }));
    assert.deepEqual(await called(next, '{"price": 1.5}'), ['{"total":3}', 0]);
    assert.deepEqual(await called(handle((payload) => payload), ' '), ['null', 0]);
    assert.deepEqual(await called(handle(() => {}), '1'), ['null', 0]);
    assert.deepEqual(await called(handle(async (name) => `Hello, ${name}!`), '"Ada"'), ['"Hello, Ada!"', 0]);
});

test('a plain handler answers at once', () => {
    assert.equal(handle((x) => x + 1)('1'), '2');
    assert.throws(() => handle(() => { throw new Failure('no'); })('1'), (error) => error === 'no');
});

test('text as it is', async () => {
    assert.deepEqual(await called(handleText((text) => text.toUpperCase()), 'not json'), ['NOT JSON', 0]);
    assert.deepEqual(await called(handleText(() => 1), ''), [{ error: 'the result must be a string, and is a number' }, 0]);
});

test('an error that was expected has no stack, another has', async () => {
    const cause = new Error('of 3', { cause: new Error('really') });
    const sold = handle(async () => { throw new Failure('sold out', { cause }); });
    assert.deepEqual(await called(sold, '1'), [{ error: 'sold out: of 3: really' }, 0]);
    const [{ error }, said] = await called(handle((x) => x.y.z), '{}');
    assert.match(error, /undefined/);
    assert.equal(said, 1);
    assert.deepEqual(await called(handle(() => { throw 'a text'; }), '1'), [{ error: 'a text' }, 0]);
});

test('what JSON cannot hold is said', async () => {
    const endless = {};
    endless.endless = endless;
    for (const value of [endless, 1n, () => {}]) {
        const [{ error }] = await called(handle(() => value), '1');
        assert.match(error, /^the result cannot be written as JSON: /);
    }
    const [{ error }] = await called(handle((x) => x), '{');
    assert.match(error, /^the payload is not JSON: /);
});

test('a handler is a function, and there is no invocation outside a host', () => {
    assert.throws(() => handle({}), /must be a function/);
    assert.throws(() => invocation(), /outside a host/);
});

test('the console of engines that have none', () => {
    const printed = [];
    const own = consoleOf((stream, bytes) => printed.push([stream, new TextDecoder().decode(bytes)]));
    own.log('a', 1, { b: ['c', null], 'd-e': new Map([[1, new Set([2n])]]) });
    own.error('ü€😀\ud800');
    assert.deepEqual(printed, [
        ['stdout', 'a 1 { b: ["c", null], "d-e": Map { 1 => Set { 2n } } }\n'],
        ['stderr', 'ü€😀\ufffd\n'],
    ]);
    const endless = { a: {} };
    endless.a.b = endless;
    assert.equal(inspect(endless), '{ a: { b: [circular] } }');
    assert.equal(inspect(Array(101).fill(0)).endsWith('0, … 1 more]'), true);
    assert.equal(inspect([[[[[1]]]]]), '[[[[…]]]]');
    assert.deepEqual(utf8('aü€😀'), new TextEncoder().encode('aü€😀'));
});
