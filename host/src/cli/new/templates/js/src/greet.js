import { Failure } from 'sharpfaas';

/** @param {{ name: string }} guest */
export async function greet(guest) {
    if (!guest?.name) {
        throw new Failure('a guest needs a name');
    }
    console.log(`greeting ${guest.name}`);
    return { greeting: `Hello, ${guest.name}!` };
}
