// Finds the known name nearest to a misspelt one, so that the error can suggest what was probably meant.

/** Compares by edits. Two swapped letters count as one edit, and a missing end counts less than wrong letters. */
export function nearest(name: string, candidates: readonly string[]): string | undefined {
  const distances = candidates.map((candidate) => ({ candidate, distance: distanceOf(name, candidate) }))
  return distances.sort((a, b) => a.distance - b.distance)[0]?.candidate
}

/** Returns true if the name begins with something close to the prefix, but not with the prefix itself. */
export function nearlyBegins(name: string, prefix: string): boolean {
  if (name.startsWith(prefix)) return false
  const length = prefix.length
  return [length - 1, length, length + 1].some(
    (end) => distance(name.slice(0, end).toUpperCase(), prefix) <= PREFIX_EDITS_MAX,
  )
}

const PREFIX_EDITS_MAX = 1
/** A letter that is missing at the end of the name costs less than a wrong one. */
const MISSING_END_WEIGHT = 0.5

function distanceOf(name: string, candidate: string): number {
  const missing = candidate.length - name.length
  if (missing > 0 && candidate.startsWith(name)) return missing * MISSING_END_WEIGHT
  return distance(name, candidate)
}

/** Damerau-Levenshtein distance (optimal string alignment) of the first 80 characters. */
function distance(left: string, right: string): number {
  const [a, b] = [left.slice(0, 80), right.slice(0, 80)]
  let beforePrevious: number[] = []
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let row = 1; row <= a.length; row++) {
    const current = [row]
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1]
      let best = Math.min(
        at(previous, column) + 1,
        at(current, column - 1) + 1,
        at(previous, column - 1) + (same ? 0 : 1),
      )
      const swapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]
      if (swapped) best = Math.min(best, at(beforePrevious, column - 2) + 1)
      current.push(best)
    }
    beforePrevious = previous
    previous = current
  }
  return at(previous, b.length)
}

function at(row: readonly number[], column: number): number {
  return row[column] ?? 0
}
