/** Reads that only a check of the store against itself needs (src/verify/): what stands beside the keys, and large sets in pages. */
import type { ByteString } from '../../crdts/bytes.js';
import type { WrongType } from './store.js';

/** What a slot holds, read in one atomic step. */
export interface SlotContent {
  /** The digest that commits have kept; 0 when there is none. */
  readonly digest: number;
  /** Key → header. */
  readonly headers: ReadonlyMap<ByteString, ByteString>;
}

/** Part of the store port. Pages as SCAN: begin with cursor '0', go on until it is '0' again; an element may come twice. */
export interface Inspection {
  /** Digest and headers of a slot. */
  slotContent(slot: number): Promise<SlotContent>;
  /** A page of a native set, of about `count` members. */
  scanMembers(
    key: ByteString,
    cursor: string,
    count: number,
  ): Promise<{ cursor: string; members: ByteString[] } | WrongType>;
  /** A page of the entries of a key, of about `count`: element → bytes. */
  scanEntries(
    key: ByteString,
    cursor: string,
    count: number,
  ): Promise<{ cursor: string; entries: Map<ByteString, ByteString> }>;
}
