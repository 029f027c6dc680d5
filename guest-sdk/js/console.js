// A console for engines that have none: it prints each text in one call of the host.

const DEEPEST = 4;
const MOST = 100;

/** The methods of a console; `print` takes `stdout` or `stderr` and UTF-8. */
export function consoleOf(print) {
    const to = (stream) => (...values) => print(stream, utf8(`${format(values)}\n`));
    const [out, err] = [to('stdout'), to('stderr')];
    return { log: out, info: out, debug: out, warn: err, error: err, trace: err };
}

function format(values) {
    return values.map((value) => (typeof value === 'string' ? value : inspect(value, []))).join(' ');
}

/** A value as people write it; deep and long ones are cut. */
export function inspect(value, within = []) {
    if (typeof value === 'string') return JSON.stringify(value);
    if (typeof value === 'bigint') return `${value}n`;
    if (typeof value === 'function') return `[function ${value.name || 'anonymous'}]`;
    if (typeof value !== 'object' || value === null) return String(value);
    if (value instanceof Error) return value.stack ? `${value}\n${value.stack}` : `${value}`;
    if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'Invalid Date' : value.toISOString();
    if (value instanceof RegExp) return String(value);
    if (within.includes(value)) return '[circular]';
    if (within.length === DEEPEST) return '…';
    const inner = (item) => inspect(item, [...within, value]);
    const list = (items, total) => {
        const shown = items.slice(0, MOST);
        if (total > MOST) shown.push(`… ${total - MOST} more`);
        return shown.join(', ');
    };
    if (Array.isArray(value) || ArrayBuffer.isView(value)) {
        const items = Array.from(value.length === undefined ? [] : value);
        return `[${list(items.slice(0, MOST).map(inner), items.length)}]`;
    }
    if (value instanceof Map) {
        const items = [...value].slice(0, MOST).map(([key, item]) => `${inner(key)} => ${inner(item)}`);
        return `Map { ${list(items, value.size)} }`;
    }
    if (value instanceof Set) return `Set { ${list([...value].slice(0, MOST).map(inner), value.size)} }`;
    const names = Object.keys(value);
    if (names.length === 0) return '{}';
    const key = (name) => (/^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name));
    return `{ ${list(names.slice(0, MOST).map((name) => `${key(name)}: ${inner(value[name])}`), names.length)} }`;
}

/** What TextEncoder does, which those engines don't have either. */
export function utf8(text) {
    const bytes = [];
    for (const character of text) {
        let code = character.codePointAt(0);
        // Half of a pair is no character.
        if (code >= 0xd800 && code <= 0xdfff) code = 0xfffd;
        if (code < 0x80) {
            bytes.push(code);
        } else if (code < 0x800) {
            bytes.push(0xc0 | (code >> 6), 0x80 | (code & 0x3f));
        } else if (code < 0x10000) {
            bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f));
        } else {
            bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 0x3f), 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f));
        }
    }
    return new Uint8Array(bytes);
}
