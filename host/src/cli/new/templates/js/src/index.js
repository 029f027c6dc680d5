// Greets whom it is told to: {"name": "Ada"} in, {"greeting": "Hello, Ada!"} out.

import { handle } from 'sharpfaas';

import { greet } from './greet.js';

export const execute = handle(greet);
