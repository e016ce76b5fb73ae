#!/usr/bin/env node
// Starts the hub. The program is in the package for this platform, which npm installs as an optional dependency.
import { spawn } from 'node:child_process'
import { createRequire } from 'node:module'

const name = `@peerpigeon/hub-${process.platform}-${process.arch}`
let program
try {
  program = createRequire(import.meta.url).resolve(`${name}/peerpigeon`)
} catch {
  console.error(`peerpigeon-hub: the package ${name} is missing: install without --omit=optional, or use another way on this platform (https://github.com/PeerPigeon/PeerPigeon-Rust#readme)`)
  process.exit(1)
}
const hub = spawn(program, process.argv.slice(2), { stdio: 'inherit' })
hub.on('error', error => {
  console.error(`peerpigeon-hub: cannot start ${program}: ${error.message}`)
  process.exit(1)
})
// These signals make the hub drain. A terminal sends SIGINT to both processes, and the hub ignores a second signal
// within half a second.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT']) process.on(signal, () => hub.kill(signal))
hub.on('exit', (code, signal) => {
  if (!signal) process.exit(code)
  // Ends this process with the signal that ended the hub, so that its parent sees the same exit status.
  process.removeAllListeners(signal)
  process.kill(process.pid, signal)
})
