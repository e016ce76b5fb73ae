/** The pause before attempt `attempt` (0, 1, …): full jitter below a bound that doubles up to `maxMs`, and never less than `floorMs`. */
export function pause (attempt: number, minMs: number, maxMs: number, floorMs = 0): number {
  const bound = Math.min(maxMs, minMs * 2 ** attempt)
  return Math.min(maxMs, floorMs + Math.random() * bound)
}
