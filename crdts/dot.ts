/**
 * Dots: the identity of one operation, (replica, stamp), and the total order on them: by stamp, then by replica id,
 * so that two replicas that never met still agree on a winner.
 */
import type { Stamp } from './stamp.js';

/** The identity that creates dots: `<hash of PeerId, 8 chars>.<epoch>` in a mesh, any non-empty string elsewhere. */
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
