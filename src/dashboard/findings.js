// Finds the problems that an operator should know, in the samples of the last ten minutes and in the current state.
import { bytes, duration, short } from './dashboard-charts.js'

const RUNBOOK = 'https://github.com/PeerPigeon/PeerPigeon-Rust/blob/main/docs/runbook.md'

/** Maximum round-trip time of a link to another hub, in milliseconds. A longer time is reported as a finding. */
const SLOW_LINK_MS = 150
/** The share of a limit at which its use is reported as a finding. */
const NEAR = 0.8
/** A certificate that expires in fewer days is reported as a finding. */
const EXPIRES_DAYS = 21
/** Index of the first bucket of turns longer than 25 ms. */
const LONG_TURN = 8

const name = id => id.slice(0, 8)
const many = (count, one, more = `${one}s`) => `${short(count)} ${count === 1 ? one : more}`

/** The sum of what `of` returns for each sample of the last `secs` seconds. */
const sum = (samples, secs, of) => samples.slice(-secs).reduce((sum, sample) => sum + (of(sample) ?? 0), 0)

/** The sum of the counts in all samples for each label: [label, count], the largest count first. */
export function byLabel (samples, field) {
  const all = {}
  for (const sample of samples) for (const [label, count] of Object.entries(sample[field] ?? {})) all[label] = (all[label] ?? 0) + count
  return Object.entries(all).sort(([, one], [, other]) => other - one)
}

/**
 * The findings: [{ level: 'bad' or 'warn', text, alert, link }], the worst first. `alert` is the heading of a paragraph
 * in the runbook.
 */
export function findings (samples, state) {
  const found = []
  const add = (level, text, alert) => found.push({ level, text, alert, link: alert && `${RUNBOOK}#${alert.toLowerCase()}` })
  const minute = samples.slice(-60)
  hub(add, samples, minute, state)
  peers(add, minute, samples, state)
  if (state.mesh) mesh(add, state.status, state.mesh)
  if (state.tls) certificates(add, state.tls)
  return found.sort((one, other) => (one.level === 'bad' ? 0 : 1) - (other.level === 'bad' ? 0 : 1))
}

function hub (add, samples, minute, state) {
  if (state.stage !== 'ready') add('warn', `The hub is ${state.stage}: it accepts no new peers.`, 'PeerPigeonNotReady')
  const [thread, since] = state.oldestTurn ?? []
  if (since > 2000) add('bad', `Thread ${thread} has made no progress for ${duration(since)}.`, 'PeerPigeonThreadStuck')
  if (state.bugs) add('bad', `The hub has found ${many(state.bugs, 'impossible state')}: report it with its log.`, 'PeerPigeonBug')
  if (state.log.dropped || state.log.stalledMs > 5000) add('warn', `The log's output does not keep up: ${many(state.log.dropped, 'line')} dropped.`, 'PeerPigeonLogStuck')
  const last = samples.slice(-10)
  const mean = of => last.reduce((sum, sample) => sum + of(sample), 0) / Math.max(1, last.length)
  const shards = samples.at(-1)?.busy.length ?? 0
  const busy = Array.from({ length: shards }, (_, shard) => mean(sample => sample.busy[shard] ?? 0) / 10)
  const wanted = busy.reduce((sum, part) => sum + part, 0) + mean(sample => sample.meshBusy) / 10
  const got = mean(sample => sample.cpu) / 10
  if (wanted > 30 && got < wanted * 0.6) {
    add('bad', `The hub does not get the processor time that it needs: its threads were awake for ${Math.round(wanted)} % of a core, and ran for ${Math.round(got)} %. Give it more CPU, or find out which other programs use it.`, 'PeerPigeonTurnsLong')
  } else {
    busy.forEach((part, shard) => { if (part > 80) add('warn', `Shard ${shard} is busy for ${Math.round(part)} % of the time.`, 'PeerPigeonShardBusy') })
  }
  const long = sum(minute, 60, sample => (sample.turns ?? []).filter(([bucket]) => bucket >= LONG_TURN).reduce((sum, [, count]) => sum + count, 0))
  if (long > 3) add('warn', `${many(long, 'turn')} of the hub's threads took longer than 25 ms in the last minute: other peers wait meanwhile.`, 'PeerPigeonTurnsLong')
  const sessions = state.shards.map(({ sessions }) => sessions)
  const all = sessions.reduce((sum, count) => sum + count, 0)
  if (sessions.length > 1 && all > 200 && Math.max(...sessions) > 2 * all / sessions.length) add('warn', `One shard has ${many(Math.max(...sessions), 'peer')} of ${short(all)}.`, 'PeerPigeonShardsUnbalanced')
  const alerts = { connections: 'PeerPigeonNearlyFull', 'queued data': 'PeerPigeonQueuesFill', 'announced data': 'PeerPigeonAnnouncedNearlyFull', memory: 'PeerPigeonMemoryHigh', 'open files': 'PeerPigeonFilesShort' }
  for (const { name, used, max, setting } of state.budgets) {
    if (used < NEAR * max) continue
    const amount = name === 'connections' || name === 'open files' ? `${short(used)} of ${short(max)}` : `${bytes(used)} of ${bytes(max)}`
    add(used >= 0.95 * max ? 'bad' : 'warn', `${name[0].toUpperCase()}${name.slice(1)}: ${amount}${setting ? ` (${setting})` : ''}.`, alerts[name])
  }
}

function peers (add, minute, samples, state) {
  const count = (field, label) => sum(minute, 60, sample => sample[field]?.[label])
  flood(add, byLabel(minute, 'exceeded'), count('closes', 'rate-limited'), state)
  const slow = count('closes', 'slow-consumer')
  if (slow) add('warn', `${many(slow, 'peer')} disconnected in the last minute, because they did not read.`, 'PeerPigeonSlowConsumers')
  const internal = count('closes', 'internal')
  if (internal) add('bad', `${many(internal, 'session')} ended by an error of the hub in the last minute.`, 'PeerPigeonInternalCloses')
  const outcomes = byLabel(minute, 'outcomes')
  const signals = outcomes.reduce((sum, [, count]) => sum + count, 0)
  const failed = outcomes.filter(([label]) => label !== 'delivered' && label !== 'forwarded')
  const lost = failed.reduce((sum, [, count]) => sum + count, 0)
  if (signals > 20 && lost > signals / 10) add('warn', `${Math.round(100 * lost / signals)} % of the signals of the last minute were not delivered: ${failed.map(([label, count]) => `${label} ${short(count)}`).join(', ')}.`, 'PeerPigeonSignalsLost')
  // A proxy sends no close frame when it cuts an idle connection.
  const closes = byLabel(samples, 'closes')
  const ended = closes.reduce((sum, [, count]) => sum + count, 0)
  const vanished = closes.filter(([label]) => label === 'connection-lost' || label === 'dead-peer').reduce((sum, [, count]) => sum + count, 0)
  if (vanished >= 5 && vanished > ended * 2 / 3) add('warn', `In the last ten minutes, ${many(ended, 'connection')} ended, and ${short(vanished)} of them without a close frame. A proxy may cut idle connections: its timeout must exceed 60 s.`, 'PeerPigeonPeersLost')
  const refused = byLabel(minute, 'refused')
  const refusals = refused.reduce((sum, [, count]) => sum + count, 0)
  if (refusals > 10) add('warn', `${many(refusals, 'connection')} refused in the last minute: ${refused.slice(0, 3).map(([label, count]) => `${label} ${short(count)}`).join(', ')}.`, 'PeerPigeonRefusedAtDoor')
  if (state.full) add('bad', 'The hub is full: new peers are refused.', 'PeerPigeonFull')
}

/** The setting of each budget. */
const BUDGETS = { messages: 'MESSAGE_RATE', bytes: 'MESSAGE_RATE_BYTES', announcements: 'ANNOUNCE_RATE_BYTES', events: 'EVENT_RATE_BYTES', discover: 'DISCOVER_RATE' }

function flood (add, exceeded, cut, { flooder }) {
  // A refused message causes an error, and the hub can withhold this error as well. So withheld errors are counted only
  // if no messages are refused.
  const refused = exceeded.filter(([budget]) => budget !== 'errors')
  const [, withheld] = exceeded.find(([budget]) => budget === 'errors') ?? [0, 0]
  if (!refused.length && !withheld && !cut) return
  const messages = refused.reduce((sum, [, count]) => sum + count, 0)
  const what = messages || !withheld ? `${many(messages, 'message')} ${refused.length ? `above ${refused.map(([budget]) => BUDGETS[budget]).join(' and ')} ` : ''}refused` : `${many(withheld, 'invalid message')}`
  const worst = flooder ? ` The worst is peer ${flooder.peer}, with ${many(flooder.refused, 'refused message')}.` : ''
  add('warn', `Peers flood the hub: ${what} and ${many(cut, 'peer')} disconnected in the last minute${cut > 1 ? ' (a flooder that returns with a new id counts each time)' : ''}.${worst}`, 'PeerPigeonRateLimited')
}

function mesh (add, own, { hubs, links, dials, redis, lagMs }) {
  for (const { id, state } of hubs) if (state === 'lost') add('bad', `Hub ${name(id)} is lost: its peers have left.`, 'PeerPigeonHubLost')
  for (const { id, state, status } of hubs) {
    if (!status || state === 'lost') continue
    if (status.connections > status.maxConnections * NEAR) add('warn', `Hub ${name(id)} has ${short(status.connections)} of ${short(status.maxConnections)} connections.`, 'PeerPigeonNearlyFull')
    if (status.busiestShard > 900) add('warn', `A shard of hub ${name(id)} was busy for ${Math.round(status.busiestShard / 10)} % of the last second.`, 'PeerPigeonShardBusy')
    if (status.version !== own.version) add('warn', `Hub ${name(id)} has version ${status.version}, and this hub ${own.version}.`, 'PeerPigeonMixedVersions')
  }
  for (const { hub, rttMs, ready, saturated, address } of links) {
    const to = hub ? name(hub) : address
    if (rttMs > SLOW_LINK_MS) add('warn', `The link to hub ${to} is slow: a round trip takes ${duration(rttMs)}.`, 'PeerPigeonSignalsSlow')
    if (saturated) add('warn', `The queue of the link to hub ${to} is full.`, 'PeerPigeonLinksFull')
    if (!ready && !hub) add('warn', `The link to ${to} is not open yet.`, 'PeerPigeonLinksFlap')
  }
  for (const { address, connected, own, attempts, error } of dials) {
    if (!connected && !own && attempts > 1) add('warn', `${address} is not linked${error ? `: ${error}` : ''}.`, 'PeerPigeonMeshIncomplete')
  }
  if (lagMs > 5000) add('warn', `This hub is ${duration(lagMs)} behind another hub's presence.`, 'PeerPigeonPresenceLate')
  if (redis && !redis.connected) add('bad', `Redis at ${redis.address} is not connected${redis.lastError ? `: ${redis.lastError}` : ''}.`, 'PeerPigeonRedisDown')
  if (redis?.oneWay.length) add('warn', `${many(redis.oneWay.length, 'hub')} on Redis send frames, but do not answer: ${redis.oneWay.slice(0, 4).map(name).join(', ')}.`, 'PeerPigeonRedisOneWay')
}

function certificates (add, { certificates, stale, missing, problem }) {
  for (const { file, names, daysLeft } of certificates) {
    if (daysLeft < EXPIRES_DAYS) add(daysLeft < 3 ? 'bad' : 'warn', daysLeft < 0 ? `The certificate in ${file} has expired.` : `The certificate ${names.length ? `of ${names.join(', ')} ` : ''}in ${file} expires in ${many(Math.floor(daysLeft), 'day')}.`, daysLeft < 3 ? 'PeerPigeonCertificateExpiresNow' : 'PeerPigeonCertificateExpires')
  }
  if (stale) add('bad', 'The latest certificate files are not valid: the previous certificate is in use.', 'PeerPigeonCertificateRefused')
  if (missing) add('bad', `${many(missing, 'name')} without a certificate${problem ? `: ${problem}` : ''}.`, 'PeerPigeonCertificateMissing')
  else if (problem) add('warn', `A certificate was not renewed: ${problem}`, 'PeerPigeonCertificateNotRenewed')
}
