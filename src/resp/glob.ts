/** Valkey's glob patterns: `*`, `?`, `[a-z]`, `[^a]`, and `\` to take a character literally. */

/** Says whether the whole value matches the pattern. Runs in |pattern| × |value| steps at most. */
export function globMatches(pattern: string, value: string): boolean {
  let p = 0;
  let v = 0;
  let starPattern = -1;
  let starValue = 0;
  while (v < value.length) {
    if (p < pattern.length && pattern[p] === '*') {
      starPattern = p;
      starValue = v;
      p += 1;
      continue;
    }
    const next = p < pattern.length ? matchOne(pattern, p, value[v] as string) : -1;
    if (next !== -1) {
      p = next;
      v += 1;
    } else if (starPattern !== -1) {
      // Only the last star needs to be tried again: an earlier one could not match more usefully.
      p = starPattern + 1;
      starValue += 1;
      v = starValue;
    } else {
      return false;
    }
  }
  while (p < pattern.length && pattern[p] === '*') p += 1;
  return p === pattern.length;
}

/** Matches one character; gives where the pattern goes on, or -1. */
function matchOne(pattern: string, at: number, char: string): number {
  const token = pattern[at] as string;
  if (token === '?') return at + 1;
  if (token === '[') return matchClass(pattern, at + 1, char);
  if (token === '\\' && at + 1 < pattern.length) return pattern[at + 1] === char ? at + 2 : -1;
  return token === char ? at + 1 : -1;
}

function matchClass(pattern: string, at: number, char: string): number {
  const negated = pattern[at] === '^';
  if (negated) at += 1;
  let found = false;
  // An unclosed class ends with the pattern, as in Valkey.
  while (at < pattern.length && pattern[at] !== ']') {
    if (pattern[at] === '\\' && at + 1 < pattern.length) {
      at += 1;
      if (pattern[at] === char) found = true;
      at += 1;
    } else if (pattern[at + 1] === '-' && at + 2 < pattern.length) {
      const [low, high] = [pattern[at] as string, pattern[at + 2] as string].sort() as [string, string];
      if (char >= low && char <= high) found = true;
      at += 3;
    } else {
      if (pattern[at] === char) found = true;
      at += 1;
    }
  }
  if (found === negated) return -1;
  return Math.min(at + 1, pattern.length);
}
