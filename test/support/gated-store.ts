/** A memory store whose answers wait for permission, and which fails as it is told: what takes effect does so at once. */
import type { ByteString } from '../../crdts/bytes.js';
import { type CommitFault, MemoryStore, type MemoryStoreOptions } from '../../src/store/memory.js';
import type { Commit, CommitResult, LoadedKey, LoadRequest } from '../../src/store/store.js';

type Kind = 'commit' | 'load' | 'open';

export class GatedStore extends MemoryStore {
  /** Every commit that was asked for, failed ones too. */
  readonly commits: Commit[] = [];
  /** Every load, as the keys that it asked for. */
  readonly loads: ByteString[][] = [];
  /** What becomes of the next commits, one each. */
  readonly faults: (CommitFault | null)[];
  /** Thrown by loads; asked with the keys. */
  loadError: (keys: readonly ByteString[]) => Error | null = () => null;
  readonly #waiting = new Map<Kind, (() => void)[]>();

  constructor(options: MemoryStoreOptions = {}) {
    const faults: (CommitFault | null)[] = [];
    super({ ...options, fault: () => faults.shift() ?? null });
    this.faults = faults;
  }

  /** From now on, answers of this kind wait. */
  hold(kind: Kind): void {
    if (!this.#waiting.has(kind)) this.#waiting.set(kind, []);
  }

  /** How many answers of this kind wait. */
  held(kind: Kind): number {
    return this.#waiting.get(kind)?.length ?? 0;
  }

  /** Lets all answers of this kind go, those to come too. */
  release(kind: Kind): void {
    const waiting = this.#waiting.get(kind) ?? [];
    this.#waiting.delete(kind);
    for (const go of waiting) go();
  }

  override async open(): ReturnType<MemoryStore['open']> {
    await this.#pass('open');
    return super.open();
  }

  override async commit(commit: Commit): Promise<CommitResult> {
    this.commits.push(commit);
    const outcome = super.commit(commit);
    outcome.catch(() => {});
    await this.#pass('commit');
    return outcome;
  }

  override async load(requests: readonly LoadRequest[]): Promise<LoadedKey[]> {
    const keys = requests.map(({ key }) => key);
    this.loads.push(keys);
    const answer = super.load(requests);
    answer.catch(() => {});
    await this.#pass('load');
    const error = this.loadError(keys);
    if (error !== null) throw error;
    return answer;
  }

  async #pass(kind: Kind): Promise<void> {
    const waiting = this.#waiting.get(kind);
    if (waiting !== undefined) await new Promise<void>((resolve) => waiting.push(resolve));
  }
}
