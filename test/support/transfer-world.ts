/** State transfers between two replicas: every byte and request counted, cut where a test wants, with work going on meanwhile. */

import { PeerError } from '../../src/errors.js';
import { LoopbackNetwork } from '../../src/mesh/loopback.js';
import type { Mesh } from '../../src/mesh/mesh.js';
import type { RemoteItem } from '../../src/replica/remote-batch.js';
import type { AppliedMark, Store } from '../../src/store/store.js';
import { toPieces } from '../../src/sync/pieces.js';
import { giveState } from '../../src/sync/state-giver.js';
import { type PullOptions, pullState, type TransferOutcome } from '../../src/sync/state-transfer.js';
import type { TouchedKeys } from '../../src/sync/touched-keys.js';

/** A mesh whose every request is answered by a function. */
export function meshThat(answer: (body: Uint8Array) => AsyncIterable<Uint8Array>): Mesh {
  const mesh = new LoopbackNetwork().mesh('me');
  mesh.request = (_peer, _protocol, body) => toPieces(answer(body));
  return mesh;
}

/** What a transfer is made between. */
export interface Side {
  readonly store: Store;
  readonly replica: {
    readonly applied: ReadonlyMap<string, AppliedMark>;
    merge(item: RemoteItem): void;
  };
}

export interface TransferOptions {
  readonly bigSetMembers?: number;
  readonly touched?: TouchedKeys;
  readonly since?: PullOptions['since'];
  readonly raise?: PullOptions['raise'];
  /** The connection breaks after so many bytes of answers. */
  readonly cutAfter?: number;
  /** Called before each message that is given. */
  readonly meanwhile?: (message: number) => Promise<void> | void;
  readonly isAhead?: (stamp: number) => boolean;
  readonly maxValueBytes?: number;
}

export interface Transferred {
  /** Bytes of requests and answers. */
  readonly bytes: number;
  readonly requests: number;
  readonly outcome: TransferOutcome | null;
  readonly error: (Error & { code?: string }) | null;
  /** The longest message. */
  readonly longest: number;
}

/** Transfers what `to` lacks of `from`. Never rejects. */
export async function transfer(from: Side, to: Side, options: TransferOptions = {}): Promise<Transferred> {
  const { bigSetMembers = 1024, cutAfter = Number.POSITIVE_INFINITY, meanwhile } = options;
  let [sent, received, requests, messages, longest] = [0, 0, 0, 0, 0];
  const giver = {
    store: from.store,
    marks: () => from.replica.applied.values(),
    token: 'same',
    bigSetMembers,
  };
  const mesh = meshThat(async function* (body) {
    requests += 1;
    sent += body.length;
    for await (const message of giveState(giver, body)) {
      messages += 1;
      await meanwhile?.(messages);
      received += message.length + 1;
      longest = Math.max(longest, message.length);
      if (received > cutAfter) throw new PeerError('the connection broke');
      yield message;
    }
  });
  try {
    const outcome = await pullState({
      mesh,
      peer: 'from',
      store: to.store,
      maxValueBytes: options.maxValueBytes ?? 1 << 20,
      isAhead: options.isAhead ?? (() => false),
      merge: (item) => to.replica.merge(item),
      bigSetMembers,
      ...(options.touched && { touched: options.touched }),
      ...(options.since && { since: options.since }),
      ...(options.raise && { raise: options.raise }),
      signal: new AbortController().signal,
    });
    return { bytes: sent + received, requests, outcome, error: null, longest };
  } catch (error) {
    return { bytes: sent + received, requests, outcome: null, error: error as Error, longest };
  }
}
