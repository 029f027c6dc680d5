// Works out an invoice: {"lines": [{"text": "tea", "quantity": "3", "price": "2.50", "vat": "8.1"}], "date": "2026-01-31"}
// in; each line's amount, the VAT by rate, the total, when it is due and a digest to tell copies by out.

import { handle, invocation } from 'sharpfaas';

import { invoice } from './invoice.js';

export const execute = handle(async (order) => {
    const made = await invoice(order);
    console.log(`${made.lines.length} lines, ${made.total} ${made.currency} by ${made.due}`);
    if (invocation().parameter('verbose')) {
        for (const { text, amount } of made.lines) console.log(`  ${text}: ${amount}`);
    }
    return made;
});
