// Compares the playground's QR codes with the codes of another encoder.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { encode } from '../../src/playground/playground-qr.js'

/**
 * For each version of QR codes: the length of the longest text, and digests of its code by npm qrcode 1.5.4 (byte mode,
 * level M), one for each of the eight masks. A digest is the first eight bytes of the SHA-256 of the rows, as 0 and 1.
 * An encoder may choose any mask, so each of the eight codes is correct.
 */
const VECTORS = [
  [14, 'aad8462a40222385 b2494a7ace76f0d9 dda249b1d66574c9 b9f50253a635f1c1 4bd6545ba18c2bb2 3e7e01c9537dc56c 7aedf6ed350c068e 9ecf211673b3afac'],
  [26, '9304689d08b91eba 91b8c6a3240dcfa3 42d7a59b281c78ce 382f2401d5114143 291ecd9afa13b8cc 25a86edacd74cb42 da5a3feee20696e3 e735553b4ae2f4c5'],
  [42, '2c731968fc7933a8 8409e48cedeead12 299d1c8b8cc61136 37af4c89a81fd033 e4a5a8d8ecb52b8e f361ca2e44382350 57384d1d7bd4cde3 0fb16c3beceb4028'],
  [62, '9ccf75355f316152 e8d9891ffffd6cba 48ccea3adef9ada5 14068169f0edd431 8a90dae184c84775 ef26581778189a66 26e409f91caf49bf eb9a81d02ff458b4'],
  [84, '59925e56502698b1 1f3a3870a9ba36bc 70ef41c65677a02d b18f030cb17eb9a1 0a558c0f2fd31fa5 809f33afab9eaa22 b76b2332543ee492 dcce33952f53e304'],
  [106, '948357045b86003b 1a59ebcbd58a1818 4bd2cf13dec4c771 808e27ffa60e1dd1 540b8a810019dd56 a26734e0438b65a2 50c26aeceec7ccb2 71168be01d9ce953'],
  [122, '7c0ae165035bb46d 7bc5e957973a121a c5a8485c58bd19c5 5b1af39d3ca669bb ae92c736d9348496 ac23b8b71ebe03aa 36dbccf9c150b82b 93ceaa1566142c86'],
  [152, '4e5f9029d94667dd 381bf01fbc633731 c68595fbb274b176 37ee5e49b3343dd4 1dcac202291301ea b17a4842d6457f41 8cd7996ab586f2c1 3994015f42052874'],
  [180, '7b898e9e1ece5f55 49818c5b9be99d58 7aabbde1bbc68dfb 4444600cbd6d84a1 4041e08c7047adc0 7b6903444b8ab06e 87acbabe977ab79b dff779f61059d1d7'],
  [213, '525b51c49c34b78d 431f9630a7a94b48 f988d071fb8d7be7 1a3d85c931687354 2957f74116c5466a 877dd9e4c6d63bc6 2551898b3f7376b8 a72a28aee52ae32b']
]

export function vectors () {
  for (const [index, [bytes, digests]] of VECTORS.entries()) {
    const text = 'http://localhost:8080/#room?'.repeat(9).slice(0, bytes)
    const modules = encode(text)
    assert.equal(modules.length, 21 + 4 * index, `version ${index + 1} for ${bytes} bytes`)
    const rows = modules.map(row => row.map(dark => dark ? 1 : 0).join('')).join('\n')
    const digest = createHash('sha256').update(rows).digest('hex').slice(0, 16)
    // The number of the mask is in the format information beside the upper left finder pattern. The bits of the mask
    // are XORed with 101.
    const [, , ...mask] = modules[8].slice(0, 5).map(Number)
    const number = (mask[0] << 2 | mask[1] << 1 | mask[2]) ^ 0b101
    assert.equal(digest, digests.split(' ')[number], `${bytes} bytes, mask ${number}`)
  }
  assert.equal(encode('x'.repeat(214)), undefined)
  // The length counts bytes: é has two.
  assert.equal(encode('é'.repeat(107)), undefined)
  assert.equal(encode('é'.repeat(106)).length, 57)
}
