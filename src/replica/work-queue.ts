/**
 * What waits for a commit: operations, and what came from other members; and which of it is the next batch.
 *
 * Operations and remote items take turns, so that neither starves the other. Order within each is kept, also when a batch
 * comes back because it must run again.
 */
import type { LocalItem } from './local-batch.js';
import type { RemoteItem } from './remote-batch.js';

/** One batch: operations or remote items, never both. */
export interface Work {
  readonly local: readonly LocalItem[];
  readonly remote: readonly RemoteItem[];
}

/** Operations in one batch, at most: a frame of them stays near 64 KiB. */
const MAX_BATCH_OPERATIONS = 1024;
/** Bytes of arguments in one batch, about, unless one operation alone has more. */
const MAX_BATCH_BYTES = 64 * 1024;
/** Keys in one batch of remote items, about. */
const MAX_BATCH_REMOTE_KEYS = 4096;

/** The queues of a replica. */
export class WorkQueue {
  #local: LocalItem[] = [];
  #localBytes = 0;
  #remote: RemoteItem[] = [];
  #turn: 'local' | 'remote' = 'local';
  /** That many operations run in batches of their own: one of them made a batch fail. */
  #alone = 0;

  /** Operations that wait. */
  get operations(): number {
    return this.#local.length;
  }

  /** Bytes of their arguments. */
  get operationBytes(): number {
    return this.#localBytes;
  }

  /** Remote items that wait. */
  get remoteItems(): number {
    return this.#remote.length;
  }

  /** Queues an operation. */
  addLocal(item: LocalItem): void {
    this.#localBytes += item.operation.bytes ?? 0;
    this.#local.push(item);
  }

  /** Queues a remote item. */
  addRemote(item: RemoteItem): void {
    this.#remote.push(item);
  }

  /** Takes the next batch; null when there is none. `only` leaves the other kind where it is. */
  take(only: 'local' | 'remote' | null): Work | null {
    const hasRemote = this.#remote.length > 0 && only !== 'local';
    const hasLocal = this.#local.length > 0 && only !== 'remote';
    if (!hasLocal && !hasRemote) return null;
    const local = !hasRemote || (this.#turn === 'local' && hasLocal);
    this.#turn = local ? 'remote' : 'local';
    return local ? { local: this.#takeLocal(), remote: [] } : { local: [], remote: this.#takeRemote() };
  }

  /**
   * Puts a batch back where it came from, before everything that came after it. After remote items operations come first: a
   * store that refuses what grows it (OOM) would else fail every operation along with the remote batch before it, and no one
   * would be told, not even a deletion be let through.
   */
  putBack(work: Work): void {
    if (work.remote.length > 0) this.#turn = 'local';
    for (const { operation } of work.local) this.#localBytes += operation.bytes ?? 0;
    if (work.local.length > 0) this.#local = [...work.local, ...this.#local];
    if (work.remote.length > 0) this.#remote = [...work.remote, ...this.#remote];
  }

  /** Puts a batch of operations back, each to run alone: one of them made it fail, and it isn't known which. */
  putBackAlone(work: Work): void {
    this.#alone += work.local.length;
    this.putBack(work);
  }

  /** Empties the queue of operations. */
  dropLocal(): Work {
    const local = this.#local;
    this.#local = [];
    this.#localBytes = 0;
    return { local, remote: [] };
  }

  /** Empties the queue of remote items. */
  dropRemote(): Work {
    const remote = this.#remote;
    this.#remote = [];
    return { local: [], remote };
  }

  #takeLocal(): LocalItem[] {
    const most = this.#alone > 0 ? 1 : MAX_BATCH_OPERATIONS;
    let count = 0;
    let bytes = 0;
    for (const { operation } of this.#local) {
      bytes += operation.bytes ?? 0;
      if (count === most || (count > 0 && bytes > MAX_BATCH_BYTES)) break;
      count += 1;
    }
    this.#alone = Math.max(0, this.#alone - count);
    const batch = count === this.#local.length ? this.#local : this.#local.slice(0, count);
    this.#local = count === this.#local.length ? [] : this.#local.slice(count);
    for (const { operation } of batch) this.#localBytes -= operation.bytes ?? 0;
    return batch;
  }

  #takeRemote(): RemoteItem[] {
    let count = 0;
    let keys = 0;
    for (const item of this.#remote) {
      keys += item.states.length;
      for (const frame of item.frames) keys += frame.deltas.length;
      if (count > 0 && keys > MAX_BATCH_REMOTE_KEYS) break;
      count += 1;
    }
    return this.#remote.splice(0, count);
  }
}
