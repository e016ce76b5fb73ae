// Writes the folders of the npm packages: peerpigeon-hub, which starts the program, and for each platform one package
// that contains the program.
//
//   node packaging/npm/layout.mjs VERSION OUT PLATFORM=FILE…     such as linux-x64=target/…/peerpigeon
//
// The name of a platform consists of Node's process.platform and process.arch. Publish the packages of all platforms
// first (npm publish OUT/hub-linux-x64, …), and then peerpigeon-hub (npm publish OUT/peerpigeon-hub).
import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const [version, out, ...programs] = process.argv.slice(2)
if (!version || !out || programs.length === 0 || programs.some(program => !/^(linux|darwin)-(x64|arm64)=./.test(program))) {
  console.error('usage: layout.mjs VERSION OUT PLATFORM=FILE…, with platforms linux-x64, linux-arm64, darwin-x64, darwin-arm64')
  process.exit(64)
}

const shared = {
  version,
  license: 'MIT',
  repository: { type: 'git', url: 'git+https://github.com/PeerPigeon/PeerPigeon-Rust.git' },
  homepage: 'https://github.com/PeerPigeon/PeerPigeon-Rust#readme'
}

function put (name, fields, files) {
  const place = join(out, name)
  mkdirSync(place, { recursive: true })
  for (const [to, from] of Object.entries({ LICENSE: join(here, '../../LICENSE'), ...files })) {
    copyFileSync(from, join(place, to))
    chmodSync(join(place, to), to === 'LICENSE' || to.endsWith('.md') ? 0o644 : 0o755)
  }
  writeFileSync(join(place, 'package.json'), JSON.stringify({ ...fields, ...shared }, null, 2) + '\n')
}

const optionalDependencies = {}
for (const program of programs) {
  const [platform, file] = [program.slice(0, program.indexOf('=')), program.slice(program.indexOf('=') + 1)]
  const [os, cpu] = platform.split('-')
  const name = `@peerpigeon/hub-${platform}`
  put(`hub-${platform}`, {
    name,
    description: `The program of peerpigeon-hub for ${os} on ${cpu}`,
    os: [os],
    cpu: [cpu],
    // The programs for Linux are static, so they run with glibc and with musl.
    files: ['peerpigeon', 'LICENSE'],
    preferUnplugged: true
  }, { peerpigeon: file })
  // peerpigeon-hub requires exactly the version of this release.
  optionalDependencies[name] = version
}
put('peerpigeon-hub', {
  name: 'peerpigeon-hub',
  description: 'A WebRTC signaling hub: npx peerpigeon-hub',
  keywords: ['webrtc', 'signaling', 'websocket', 'p2p'],
  type: 'module',
  bin: { 'peerpigeon-hub': 'launch.mjs' },
  files: ['launch.mjs', 'README.md', 'LICENSE'],
  engines: { node: '>=18' },
  optionalDependencies
}, { 'launch.mjs': join(here, 'launch.mjs'), 'README.md': join(here, 'README.md') })
