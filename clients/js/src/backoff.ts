/** The pause before attempt `attempt` (0, 1, …). The pause is random between `floorMs` and a bound that doubles with each attempt and is at most `maxMs`. */
export function pause (attempt: number, minMs: number, maxMs: number, floorMs = 0): number {
  const bound = Math.min(maxMs, minMs * 2 ** attempt)
  return Math.min(maxMs, floorMs + Math.random() * bound)
}
