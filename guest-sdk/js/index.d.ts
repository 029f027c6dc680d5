/**
 * Write functions for the sharpfaas function host.
 *
 * ```js
 * import { handle } from 'sharpfaas';
 *
 * export const execute = handle((order) => {
 *     console.log(`${order.quantity} × ${order.article}`);
 *     return { total: order.quantity * order.price };
 * });
 * ```
 *
 * What it prints by `console` is the call's console, which callers can watch live. Each call runs in an instance of
 * its own: variables hold nothing from one call to the next. What a module does outside its handler is done once, when
 * the component is built, and not again.
 */

/** The export `execute` of a function. */
export type Execute = (payload: string) => any;

/**
 * Makes a handler the function of this component; the module exports what this gives as `execute`.
 *
 * The handler gets the payload, decoded from JSON; an empty payload is `null`. What it returns, or what its promise
 * comes to, is encoded as JSON; `undefined` is `null`. What it throws ends the call with `function_failed`: the caller
 * reads the message and those of its causes, and the stack is printed on standard error, but that of a {@link Failure}.
 *
 * With the engine `quickjs` a handler can't be `async`.
 */
export function handle<Payload = any, Result = unknown>(
    handler: (payload: Payload) => Result | PromiseLike<Result>,
): Execute;

/** As {@link handle}, without JSON: the handler gets the payload as it came, and returns the result as it goes out. */
export function handleText(handler: (payload: string) => string | PromiseLike<string>): Execute;

/** An error that can be expected: the caller reads its text, and no stack is printed. */
export class Failure extends Error {}

/** What a call knows of itself. */
export interface Invocation {
    /** This call; no other has the same. It stands in the host's log and history. */
    readonly id: string;
    /** Who calls, as the caller said it; not checked by the host. */
    readonly callerId: string | undefined;
    /** The name the function was called by. */
    readonly functionName: string;
    /** The lane it runs in, such as `dev`. */
    readonly lane: string;
    /** The exact version that runs, `major.minor`, whatever the caller selected it by. */
    readonly version: string;
    /** The call's further parameters in their order; a name may stand there more than once. */
    readonly parameters: ReadonlyArray<readonly [name: string, value: string]>;
    /** When the host ends the call; `undefined`: it does not. */
    readonly deadline: Date | undefined;
    /** The first parameter of that name, upper and lower case being the same. */
    parameter(name: string): string | undefined;
    /** How many milliseconds are left until the deadline, 0 when it has passed; `undefined` when there is none. */
    remaining(): number | undefined;
}

/** The context of the call that is running. Throws where there is no host, so in tests and while a component is built. */
export function invocation(): Invocation;
