#!/usr/bin/env node
// Makes a component of a module and all that it imports: sharpfaas-build --help

import { existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const USAGE = `usage: sharpfaas-build [ENTRY] [--out FILE] [--engine ENGINE] [--fetch]

Makes a component of the module ENTRY, JavaScript or TypeScript, and all that it imports.
ENTRY is by default what "main" of package.json names, or src/index.js.

  --out FILE        the component; by default dist/NAME.wasm, with the package's name
  --engine ENGINE   starlingmonkey (default): the web's platform, async handlers; some 12 MB
                    quickjs: the language alone, no async handlers; some 2 MB, and built in a moment
  --fetch           let the function call fetch, where the host grants it; starlingmonkey only`;

const ENGINES = { starlingmonkey: '@bytecodealliance/componentize-js', quickjs: 'componentize-qjs' };
const WORLD = 'function';

/** A mistake of the user's: told without a stack. */
class Mistake extends Error {}

/** A tool, as the project has it; this package may lie elsewhere. */
async function tool(name) {
    const own = fileURLToPath(import.meta.url);
    const file = resolveFrom(join(process.cwd(), 'package.json'), name) ?? resolveFrom(own, name);
    if (!file) throw new Mistake(`${name} is missing: run 'npm install --save-dev ${name}'`);
    try {
        return await import(pathToFileURL(file));
    } catch (error) {
        if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error;
        const lacks = /'([^']+)'/.exec(error.message)?.[1] ?? error.message;
        throw new Mistake(`${name} lacks ${lacks}, which it does not name itself: run 'npm install --save-dev ${lacks}'`);
    }
}

/** The file that an import of `name` from the file `from` means, if it is there. */
function resolveFrom(from, name) {
    const require = createRequire(from);
    try {
        return require.resolve(name);
    } catch (error) {
        if (error.code !== 'ERR_PACKAGE_PATH_NOT_EXPORTED') return undefined;
    }
    // A package for imports alone: its description says which file that is.
    for (const folder of require.resolve.paths(name) ?? []) {
        const description = join(folder, name, 'package.json');
        if (!existsSync(description)) continue;
        const { exports } = JSON.parse(readFileSync(description, 'utf8'));
        const main = exports?.['.'] ?? exports;
        const file = typeof main === 'string' ? main : (main?.import ?? main?.default);
        if (typeof file === 'string') return join(folder, name, file);
    }
    return undefined;
}

function wit() {
    const own = dirname(fileURLToPath(import.meta.url));
    // Within the repository the interface has one place, for all languages.
    const found = [join(own, 'wit'), join(own, '../wit')].find((path) => existsSync(join(path, 'function.wit')));
    if (!found) throw new Mistake(`${own} is not whole: it has no wit/function.wit`);
    return found;
}

async function description() {
    try {
        return JSON.parse(await readFile('package.json', 'utf8'));
    } catch (error) {
        if (error.code === 'ENOENT') return {};
        throw new Mistake(`package.json: ${error.message}`);
    }
}

/** One module of all that the entry imports, but what the host has. */
async function bundle(entry) {
    const { build } = await tool('esbuild');
    const built = await build({
        entryPoints: [entry],
        bundle: true,
        write: false,
        metafile: true,
        outfile: 'bundle.js',
        format: 'esm',
        platform: 'neutral',
        mainFields: ['module', 'main'],
        conditions: ['sharpfaas', 'worker', 'import', 'module', 'default'],
        target: 'es2022',
        external: ['sharpfaas:*', 'wasi:*'],
        logLevel: 'warning',
    }).catch(() => {
        // It has said what is wrong, and where.
        throw new Mistake(`${entry} could not be bundled`);
    });
    const [{ exports }] = Object.values(built.metafile.outputs);
    if (!exports.includes('execute')) {
        throw new Mistake(
            `${entry} must export 'execute', as in: export const execute = handle((payload) => …); it exports ${exports.join(', ') || 'nothing'}`,
        );
    }
    return built.outputFiles[0].text;
}

async function componentOf(source, engine, fetch) {
    const made = await tool(ENGINES[engine]);
    const componentize = made.componentize ?? made.default.componentize;
    if (engine === 'quickjs') {
        return (await componentize({ jsSource: source, witPath: wit(), world: WORLD, sync: true })).component;
    }
    const folder = await mkdtemp(join(tmpdir(), 'sharpfaas-'));
    try {
        const sourcePath = join(folder, 'bundle.js');
        await writeFile(sourcePath, source);
        const disableFeatures = fetch ? ['fetch-event'] : ['http', 'fetch-event'];
        // As text, because it reads files of this folder's tree only.
        const witWorld = await readFile(join(wit(), 'function.wit'), 'utf8');
        return (await componentize({ sourcePath, witWorld, worldName: WORLD, disableFeatures })).component;
    } finally {
        await rm(folder, { recursive: true, force: true });
    }
}

function options() {
    try {
        return parseArgs({
            allowPositionals: true,
            options: {
                out: { type: 'string' },
                engine: { type: 'string', default: 'starlingmonkey' },
                fetch: { type: 'boolean', default: false },
                help: { type: 'boolean', short: 'h', default: false },
            },
        });
    } catch (error) {
        throw new Mistake(`${error.message}\n${USAGE}`);
    }
}

async function main() {
    const { values, positionals } = options();
    if (values.help) {
        console.log(USAGE);
        return;
    }
    if (positionals.length > 1) throw new Mistake(`one ENTRY at most\n${USAGE}`);
    if (!Object.hasOwn(ENGINES, values.engine)) {
        throw new Mistake(`--engine ${values.engine}: it must be ${Object.keys(ENGINES).join(' or ')}`);
    }
    if (values.fetch && values.engine !== 'starlingmonkey') throw new Mistake(`--engine ${values.engine} has no fetch`);
    const { name = 'function', main: named } = await description();
    const entry = positionals[0] ?? named ?? 'src/index.js';
    if (!existsSync(entry)) throw new Mistake(`${entry} is not there: name the function's module as ENTRY`);
    const out = resolve(values.out ?? join('dist', `${name.split('/').pop()}.wasm`));
    const component = await componentOf(await bundle(entry), values.engine, values.fetch);
    await mkdir(dirname(out), { recursive: true });
    await writeFile(out, component);
    console.log(`${out} (${(component.length / 1e6).toFixed(1)} MB)`);
}

main().catch((error) => {
    console.error(`sharpfaas-build: ${error instanceof Mistake ? error.message : error.stack ?? error}`);
    process.exitCode = 1;
});
