import assert from 'node:assert/strict';
import test from 'node:test';

import { invoice } from '../src/invoice.js';

const tea = { text: 'tea', quantity: 3, price: '2.50', vat: '2.6' };
const pot = { text: 'pot', quantity: '1', price: '19.90', vat: '8.1' };

test('amounts, VAT by rate, the total and when it is due', async () => {
    const { digest, ...made } = await invoice({ lines: [tea, pot, tea], date: '2026-01-31' });
    assert.deepEqual(made, {
        lines: [{ text: 'tea', amount: '7.50' }, { text: 'pot', amount: '19.90' }, { text: 'tea', amount: '7.50' }],
        net: '34.90',
        vat: [{ rate: '2.6', base: '15.00', amount: '0.39' }, { rate: '8.1', base: '19.90', amount: '1.61' }],
        total: '36.90',
        currency: 'CHF',
        due: '2026-03-02',
    });
    assert.match(digest, /^sha256-[0-9a-f]{64}$/);
});

test('cents are not lost', async () => {
    const dime = { text: 'dime', quantity: 3, price: 0.1, vat: 0 };
    assert.equal((await invoice({ lines: [dime], date: '2026-01-31' })).total, '0.30');
});

test('what is wrong is said', async () => {
    const order = (lines, rest) => invoice({ lines, date: '2026-01-31', ...rest });
    await assert.rejects(order([]), /lines must be an array/);
    await assert.rejects(order([{ ...tea, price: '-1' }]), /lines\[0\]\.price must be a number/);
    await assert.rejects(order([tea], { date: 'soon' }), /date must be a date/);
    await assert.rejects(order([tea], { days: 1.5 }), /days must be/);
});
