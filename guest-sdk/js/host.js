// The host's side in a component. The package's "imports" name this file as #host where a component is built.

import * as calls from 'sharpfaas:function/invocation@1.0.0';
import * as consoles from 'sharpfaas:function/console@1.0.0';

import { consoleOf } from './console.js';

// One engine gives an interface's functions by name, the other as a whole.
const of = (module) => module.default ?? module;

export const current = () => of(calls).current();

// QuickJS has none.
globalThis.console ??= consoleOf((stream, bytes) => of(consoles).print(stream, bytes));
