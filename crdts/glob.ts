/**
 * Valkey's glob patterns over bytes: `*` any run, `?` any one, `[abc]` `[a-z]` `[^x]` one of a class, `\` the next
 * character literally. As in Valkey, a class that isn't closed ends with the pattern, a lone `\` at the end is itself, and the
 * empty value matches the empty pattern and `*`, but no longer run of stars. Bytes are
 * ordered 0–255 in ranges; Valkey orders them as its machine's C does, which may put 128–255 before 0.
 */
import type { ByteString } from './bytes.js';

const STAR = 0x2a;
const QUESTION = 0x3f;
const OPEN = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE = 0x5d;
const CARET = 0x5e;
const DASH = 0x2d;

/** Matches one byte against the token at `at`; gives where the pattern goes on, or -1. */
function matchOne(pattern: ByteString, at: number, byte: number): number {
  const token = pattern.charCodeAt(at);
  if (token === QUESTION) return at + 1;
  if (token === OPEN) return matchClass(pattern, at + 1, byte);
  if (token === BACKSLASH && at + 1 < pattern.length)
    return pattern.charCodeAt(at + 1) === byte ? at + 2 : -1;
  return token === byte ? at + 1 : -1;
}

function matchClass(pattern: ByteString, at: number, byte: number): number {
  const negated = pattern.charCodeAt(at) === CARET;
  if (negated) at += 1;
  let found = false;
  while (at < pattern.length) {
    const char = pattern.charCodeAt(at);
    if (char === BACKSLASH && at + 1 < pattern.length) {
      found ||= pattern.charCodeAt(at + 1) === byte;
      at += 2;
    } else if (char === CLOSE) {
      break;
    } else if (at + 2 < pattern.length && pattern.charCodeAt(at + 1) === DASH) {
      const end = pattern.charCodeAt(at + 2);
      found ||= byte >= Math.min(char, end) && byte <= Math.max(char, end);
      at += 3;
    } else {
      found ||= char === byte;
      at += 1;
    }
  }
  return found === negated ? -1 : Math.min(at + 1, pattern.length);
}

/**
 * Says whether the whole value matches the pattern.
 *
 * Only the last `*` is ever tried again, since an earlier one could not match more usefully: the work is at most
 * |pattern| × |value|, whatever the pattern.
 */
export function globMatches(pattern: ByteString, value: ByteString): boolean {
  if (value.length === 0) return pattern === '' || pattern === '*';
  let p = 0;
  let v = 0;
  let starAt = -1;
  let starValue = 0;
  while (v < value.length) {
    if (p < pattern.length && pattern.charCodeAt(p) === STAR) {
      p += 1;
      if (p === pattern.length) return true;
      starAt = p;
      starValue = v;
      continue;
    }
    const next = p < pattern.length ? matchOne(pattern, p, value.charCodeAt(v)) : -1;
    if (next >= 0) {
      p = next;
      v += 1;
    } else if (starAt >= 0) {
      starValue += 1;
      p = starAt;
      v = starValue;
    } else {
      return false;
    }
  }
  while (p < pattern.length && pattern.charCodeAt(p) === STAR) p += 1;
  return p === pattern.length;
}
