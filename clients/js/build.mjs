// Builds dist/ and docs/client/. Both are committed, so that a hub is built without Node, and a review shows every change of
// the API. `--check` compares instead of writing.
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { spawnSync } from 'node:child_process'
import { build } from 'esbuild'
import { minify } from 'terser'
import { generateDtsBundle } from 'dts-bundle-generator'
import { Application } from 'typedoc'

/** Maximum size of a bundle, in bytes after gzip. */
const BUDGETS = { client: 7 * 1024, extras: 3 * 1024 }

/** Properties of internal objects. These properties get short names, since neither users nor browsers use them. */
const INTERNAL = [
  'arrived', 'attach', 'broken', 'bytes', 'channelOptions', 'channels', 'check', 'connection', 'declined', 'done', 'emit', 'fail', 'fault', 'crowded', 'floorMs', 'gone',
  'hide', 'host', 'hubChanged', 'identity', 'idle', 'line', 'linkChanged', 'made', 'main', 'mark', 'negotiation', 'nudge', 'begin', 'post', 'online', 'options', 'packed', 'pending', 'pickUp', 'polite', 'present',
  'probe', 'putDown', 'receive', 'refused', 'relay', 'remote', 'renew', 'repeat', 'settle', 'show', 'silence', 'suspend', 'tag', 'take', 'wake', 'welcomed'
]

/** Internal properties of the only class that both bundles contain. */
const EMITTER = ['emit', 'silence']

/** Options that make the code longer before gzip, and shorter after it, are `sequences`, `lhs_constants` and `if_return`. */
const COMPRESS = {
  passes: 4, unsafe: true, unsafe_arrows: true, unsafe_methods: true, keep_fargs: false, pure_getters: true,
  sequences: false, lhs_constants: false, if_return: false
}

const root = new URL('.', import.meta.url)
const { version, license } = JSON.parse(await readFile(new URL('package.json', root), 'utf8'))

process.chdir(new URL('.', root).pathname)
const files = {}
for (const [name, source] of [['client', 'src/index.ts'], ['extras', 'src/extras/index.ts']]) {
  const { outputFiles: [{ text }], mangleCache } = await build({
    entryPoints: [source],
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    legalComments: 'none',
    mangleProps: new RegExp(`^(${INTERNAL.join('|')})$`),
    mangleCache: {},
    write: false,
    charset: 'utf8'
  })
  // All other names in `extras` are names of browsers' objects, such as MessagePort.start(), and must not be shortened.
  const wrong = name === 'extras' ? Object.keys(mangleCache).filter(name => !EMITTER.includes(name)) : []
  if (wrong.length > 0) throw new Error(`INTERNAL has names that extras uses: ${wrong}`)
  const { code } = await minify(text, { module: true, ecma: 2020, compress: COMPRESS, mangle: true })
  files[`dist/${name}.js`] = `// PeerPigeon ${version}, ${license} licence\n${code}\n`
  const size = compressed(files[`dist/${name}.js`])
  console.log(`${name}.js: ${size} bytes gzipped, at most ${BUDGETS[name]}`)
  if (size > BUDGETS[name]) process.exitCode = 1
  const output = { noBanner: true, exportReferencedTypes: false, sortNodes: false }
  files[`dist/${name}.d.ts`] = generateDtsBundle([{ filePath: source, output }], { preferredConfigPath: 'tsconfig.json' })[0]
}

/** The size in bytes after gzip: the greater of the sizes by zlib and by GNU gzip (if installed), which differ by about 1 %. */
function compressed (text) {
  const { stdout } = spawnSync('gzip', ['-9'], { input: text })
  return Math.max(gzipSync(text, { level: 9 }).length, stdout?.length ?? 0)
}

/** The reference, as Markdown. */
async function reference () {
  const out = await mkdtemp(join(tmpdir(), 'peerpigeon-'))
  const table = 'table'
  const app = await Application.bootstrapWithPlugins({
    plugin: ['typedoc-plugin-markdown'],
    name: 'The browser client: reference',
    entryPoints: ['src/index.ts', 'src/extras/index.ts'],
    out,
    readme: 'none',
    outputFileStrategy: 'modules',
    excludeExternals: true,
    excludeInternal: true,
    disableSources: true,
    hidePageHeader: true,
    hideBreadcrumbs: true,
    parametersFormat: table,
    interfacePropertiesFormat: table,
    classPropertiesFormat: table,
    typeDeclarationFormat: table,
    propertyMembersFormat: table,
    logLevel: 'Warn'
  })
  await app.generateOutputs(await app.convert())
  for (const name of await readdir(out)) files[`../../docs/client/${name}`] = await readFile(join(out, name), 'utf8')
  await rm(out, { recursive: true })
}

await reference()
for (const [name, text] of Object.entries(files)) {
  const path = new URL(name, root)
  if (process.argv.includes('--check')) {
    if (await readFile(path, 'utf8').catch(() => '') === text) continue
    console.error(`${name} is not the build of the source: run npm run build`)
    process.exitCode = 1
  } else {
    await mkdir(new URL('.', path), { recursive: true })
    await writeFile(path, text)
  }
}
