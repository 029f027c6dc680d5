import Big from 'big.js';
import { Failure } from 'sharpfaas';

const DAY = 24 * 60 * 60 * 1000;
const HALF_EVEN = 2;

/**
 * @typedef {{ text: string, quantity: string | number, price: string | number, vat: string | number }} Line
 * @param {{ lines: Line[], date: string, days?: number, currency?: string }} order amounts as decimal numbers, VAT in
 *     percent, and how many days there are to pay
 */
export async function invoice(order) {
    const { lines: given, date, days = 30, currency = 'CHF' } = order ?? {};
    if (!Array.isArray(given) || given.length === 0) throw new Failure('lines must be an array with a line at least');
    const due = dueDate(date, days);
    /** What each rate is due on: VAT is rounded once for each, and not line by line. */
    const bases = new Map();
    const lines = given.map((line, index) => {
        const at = `lines[${index}]`;
        if (typeof line?.text !== 'string') throw new Failure(`${at}.text must be a string`);
        const amount = number(line.quantity, `${at}.quantity`).times(number(line.price, `${at}.price`)).round(2, HALF_EVEN);
        const rate = number(line.vat, `${at}.vat`).toString();
        bases.set(rate, (bases.get(rate) ?? new Big(0)).plus(amount));
        return { text: line.text, amount: amount.toFixed(2) };
    });
    const vat = [...bases]
        .sort(([one], [other]) => new Big(one).cmp(other))
        .map(([rate, base]) => ({ rate, base, amount: base.times(rate).div(100).round(2, HALF_EVEN) }));
    const net = vat.reduce((sum, { base }) => sum.plus(base), new Big(0));
    const total = vat.reduce((sum, { amount }) => sum.plus(amount), net);
    const made = {
        lines,
        net: net.toFixed(2),
        vat: vat.map(({ rate, base, amount }) => ({ rate, base: base.toFixed(2), amount: amount.toFixed(2) })),
        total: total.toFixed(2),
        currency,
        due,
    };
    return { ...made, digest: await digest(JSON.stringify(made)) };
}

function number(value, at) {
    try {
        const number = new Big(value);
        if (number.gte(0)) return number;
    } catch {
        // As a negative one.
    }
    throw new Failure(`${at} must be a number that is not negative, and is ${JSON.stringify(value)}`);
}

function dueDate(date, days) {
    const from = typeof date === 'string' && /^\d{4}-\d\d-\d\d$/.test(date) ? Date.parse(date) : Number.NaN;
    if (Number.isNaN(from)) throw new Failure('date must be a date such as "2026-01-31"');
    if (!Number.isInteger(days) || days < 0 || days > 365) throw new Failure('days must be a whole number from 0 to 365');
    return new Date(from + days * DAY).toISOString().slice(0, 10);
}

async function digest(text) {
    const bytes = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)));
    return `sha256-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}
