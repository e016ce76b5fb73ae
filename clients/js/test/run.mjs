// Bundles the TypeScript tests and runs them.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build } from 'esbuild'

const here = new URL('.', import.meta.url).pathname
const tests = readdirSync(here).filter(name => name.endsWith('.test.ts'))
const outdir = mkdtempSync(join(tmpdir(), 'peerpigeon-'))
await build({ entryPoints: tests.map(name => here + name), bundle: true, platform: 'node', format: 'esm', outdir, outExtension: { '.js': '.mjs' }, sourcemap: 'inline' })
const { status } = spawnSync(process.execPath, ['--enable-source-maps', '--test', ...process.argv.slice(2), ...tests.map(name => join(outdir, name.replace('.ts', '.mjs')))], { stdio: 'inherit' })
rmSync(outdir, { recursive: true })
process.exit(status ?? 1)
