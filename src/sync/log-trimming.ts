/**
 * Log trimming: which logs in this node's store has everyone applied? Its own; those of earlier epochs; and those of nodes that used
 * the store and are gone. What is old of the running epoch's is cut by whoever made it (frame-log.ts).
 */
import type { ReplicaId } from '../../crdts/dot.js';
import { replicaHash } from '../mesh/identity.js';
import type { PeerId } from '../mesh/mesh.js';
import type { Replica } from '../replica/replica.js';
import type { Store } from '../store/store.js';
import type { Members } from './members.js';

export interface LogTrimmingOptions {
  readonly self: PeerId;
  readonly members: Members;
  readonly replica: Pick<Replica, 'id' | 'applied'>;
  readonly store: Pick<Store, 'trimLog'>;
  /** All members have applied this replica's frames up to this number. */
  readonly onEveryoneHas: (number: number) => void;
}

export class LogTrimming {
  readonly #options: LogTrimmingOptions;
  /** Replica → the number up to which its log was trimmed. */
  readonly #trimmed = new Map<ReplicaId, number>();

  constructor(options: LogTrimmingOptions) {
    this.#options = options;
  }

  /** Trims what can be trimmed; what fails is tried again with the next call. */
  look(): void {
    const { self, members, replica, store, onEveryoneHas } = this.#options;
    const counted = members.counted();
    if (counted.length === 0) return;
    // Logs of members that count are their own business, wherever they are; a log that isn't here is trimmed in vain.
    const others = new Set(counted.map(({ peerId }) => replicaHash(peerId)));
    others.delete(replicaHash(self));
    for (const { replica: id, number } of replica.applied.values()) {
      if (others.has(id.slice(0, id.indexOf('.'))) || this.#trimmed.get(id) === number) continue;
      const everyone = Math.min(...counted.map((member) => member.applied.get(id) ?? 0));
      if (id === replica.id) onEveryoneHas(everyone);
      else if (everyone >= number) {
        this.#trimmed.set(id, number);
        store.trimLog(id, number).catch(() => this.#trimmed.delete(id));
      }
    }
  }
}
