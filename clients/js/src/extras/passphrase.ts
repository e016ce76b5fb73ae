// A passphrase that all members of a room share and that the hub does not know.
import type { Sealer } from '../api.js'

/**
 * Number of PBKDF2 iterations, as OWASP recommends for SHA-256. A page computes them once, which takes some tenths of a
 * second. A hub that tries to guess the passphrase of relayed signals must compute them for each guess.
 */
const ITERATIONS = 600_000
const IV_BYTES = 12

const encode = (text: string) => new TextEncoder().encode(text)

/**
 * Returns a value for the option `seal`. With it, only peers with the same passphrase can connect, and the hub cannot
 * read or change their signals.
 *
 * The hub still sees the room's name, its members and their data. A peer with another passphrase causes an error with
 * the code 'passphrase'. The page needs a secure context (HTTPS, or localhost).
 */
export function passphrase (secret: string): (network: string) => Sealer {
  const { subtle } = crypto
  if (!subtle) throw new TypeError('a passphrase needs crypto.subtle: serve the page by HTTPS, or from localhost')
  return network => {
    const key = derive(secret, network)
    return {
      async seal (signal, context) {
        const iv = crypto.getRandomValues(new Uint8Array(IV_BYTES))
        const sealed = await subtle.encrypt({ name: 'AES-GCM', iv, additionalData: encode(context) }, await key, encode(JSON.stringify(signal)))
        return { sealed: btoa([...iv, ...new Uint8Array(sealed)].map(byte => String.fromCharCode(byte)).join('')) }
      },
      async open ({ sealed }, context) {
        const bytes = Uint8Array.from(atob(sealed), character => character.charCodeAt(0))
        const [iv, data] = [bytes.slice(0, IV_BYTES), bytes.slice(IV_BYTES)]
        const signal = await subtle.decrypt({ name: 'AES-GCM', iv, additionalData: encode(context) }, await key, data)
        return JSON.parse(new TextDecoder().decode(signal))
      }
    }
  }
}

async function derive (secret: string, network: string): Promise<CryptoKey> {
  const { subtle } = crypto
  const material = await subtle.importKey('raw', encode(secret), 'PBKDF2', false, ['deriveKey'])
  const kind = { name: 'PBKDF2', hash: 'SHA-256', salt: encode(`peerpigeon ${network}`), iterations: ITERATIONS }
  return subtle.deriveKey(kind, material, { name: 'AES-GCM', length: 256 }, false, ['encrypt', 'decrypt'])
}
