import assert from 'node:assert/strict';
import test from 'node:test';

import { greet } from '../src/greet.js';

test('greets by name', async () => {
    assert.deepEqual(await greet({ name: 'Ada' }), { greeting: 'Hello, Ada!' });
});

test('a guest needs a name', async () => {
    await assert.rejects(greet({}), /needs a name/);
});
