/**
 * Dots: the identity of one operation, (replica, stamp), and the total order on them: by stamp, then by replica id,
 * so that two replicas that never met still agree on a winner.
 */
import { InvariantError } from './errors.js';
import { isStamp, type Stamp } from './stamp.js';

/**
 * The identity that creates dots: `<hash of PeerId, 8 chars>.<epoch>` in a mesh; anywhere, 1 to 64
 * printable ASCII characters without spaces.
 */
export type ReplicaId = string;

/** The identity of one operation. No two operations share a dot. */
export interface Dot {
  readonly replica: ReplicaId;
  readonly stamp: Stamp;
}

/** Where and when an operation happens: the dot that it creates. */
export type Site = Dot;

/** Orders two dots: negative when the first is lower. By stamp, then by replica id. */
export function compareDots(a: Dot, b: Dot): number {
  return a.stamp - b.stamp || (a.replica < b.replica ? -1 : a.replica > b.replica ? 1 : 0);
}

/** Orders lists of dots: by their first difference, replica before stamp; a list that goes on comes later. */
export function compareDotLists(a: readonly Dot[], b: readonly Dot[]): number {
  for (let i = 0; i < a.length && i < b.length; i += 1) {
    const [x, y] = [a[i]!, b[i]!];
    if (x.replica !== y.replica) return x.replica < y.replica ? -1 : 1;
    if (x.stamp !== y.stamp) return x.stamp - y.stamp;
  }
  return a.length - b.length;
}

/**
 * Throws InvariantError unless a site's stamp is later than what has been seen of its replica. An operation at a used
 * or an older stamp would be taken for one that was seen before, and be lost in silence.
 */
export function requireLater(site: Site, seen: Stamp): void {
  if (isStamp(site.stamp) && site.stamp > seen) return;
  throw new InvariantError(
    `stamp ${site.stamp} of ${site.replica} is not after ${seen}: give each operation its own stamp, and observe those that you merge`,
  );
}
