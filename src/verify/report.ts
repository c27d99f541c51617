/** What a verification finds: plain JSON, the same through RESP, HTTP, the command line and the embed API. */
import type { ExplainedKey, Readable } from '../../crdts/explanation.js';

export interface VerifyOptions {
  /** Compare what each region's Valkey holds natively with the metadata, and native strings between regions. Default: false. */
  readonly deep?: boolean;
  /** Write again what {@link deep} found wrong; implies it. Default: false. */
  readonly repair?: boolean;
  /** How long to try for a common cut. 100 to 120,000. Default: 30,000. */
  readonly timeoutMs?: number;
}

/** What has become of one member. */
export interface VerifiedRegion {
  readonly region: string;
  readonly peerId: string;
  /** `compared`: at the cut, as the others. Else the reason says why it wasn't. */
  readonly state: 'compared' | 'away' | 'refused' | 'failed';
  readonly reason: string | null;
  /** Digest of all its live data at the cut, 12 hex digits. */
  readonly digest: string | null;
  /** Keys at the cut, as its Valkey counts them. */
  readonly keys: number | null;
}

/** A key that regions hold differently at the cut. */
export interface DifferingKey {
  readonly key: Readable;
  readonly slot: number;
  readonly regions: readonly {
    readonly region: string;
    readonly peerId: string;
    /** Digest of the key as its header says it, 12 hex digits; null = nothing lives there. */
    readonly digest: string | null;
    /** How the key came to be what it is there; null = no header there, or not read in time. */
    readonly state: ExplainedKey | null;
  }[];
}

/** Things that a region's own store can have wrong. */
export type FindingKind =
  /** The header says that it is there, natively it isn't: removed past the node, or evicted. */
  | 'native missing'
  | 'native of another type'
  /** The native bytes are not those of the header, or not those of the other regions with the same write. */
  | 'native differs'
  /** The native set doesn't have the members that have entries. */
  | 'members differ'
  | 'expiry differs'
  /** The native key is there, and no header says so: written past the node. Never touched. */
  | 'unreplicated'
  /** A header that can't be read. */
  | 'header damaged'
  /** The entries of a set are not those that its header was written with. */
  | 'entries damaged'
  /** A slot's digest isn't the sum of its headers': a header was changed or removed past the node. */
  | 'slot damaged';

export interface Finding {
  readonly region: string;
  readonly peerId: string;
  readonly kind: FindingKind;
  /** Null where it is about a slot. */
  readonly key: Readable | null;
  readonly slot: number;
  readonly detail: string;
  /** What --repair did about it; null when nothing was tried. */
  readonly repair: 'repaired' | 'left' | null;
  /** Why it was left. */
  readonly why: string | null;
}

export interface DeepReport {
  /** Keys that were compared with their native values, over all regions. */
  readonly checked: number;
  /** Keys that changed each time they were looked at: nothing is said of them. */
  readonly inFlux: number;
  readonly findings: readonly Finding[];
  /** Findings beyond those that are listed. */
  readonly more: number;
}

export interface VerifyReport {
  /** `unverified`: no difference was found, but not all could be compared; `reasons` says why. */
  readonly outcome: 'identical' | 'different' | 'unverified';
  readonly regions: readonly VerifiedRegion[];
  readonly reasons: readonly string[];
  /** The common cut: replica → number of its last frame in it. Null when none was reached. */
  readonly cut: Readonly<Record<string, number>> | null;
  /** How long operations were held, on the member where that was longest; 0 = they weren't. */
  readonly heldMs: number;
  /** Slots whose digests differ. */
  readonly differingSlots: number;
  readonly differingKeys: readonly DifferingKey[];
  /** There are more differing slots or keys than were looked at. */
  readonly moreKeys: boolean;
  readonly deep: DeepReport | null;
  readonly tookMs: number;
}

/** Exit codes of `valkey-mesh verify`, by outcome. 2 is a flag that isn't usable. */
export const VERIFY_EXIT_CODES = { identical: 0, different: 1, unverified: 3 } as const;

/** A digest as people see it. */
export function hexDigest(digest: number): string {
  return digest.toString(16).padStart(12, '0');
}
