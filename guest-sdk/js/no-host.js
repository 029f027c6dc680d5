// In place of the host, in tests.

export function current() {
    throw new Error('there is no invocation outside a host: give what a handler reads from it to a function of its own');
}
