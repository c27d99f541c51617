/**
 * A memory store with eras (Store.era), which begin and end as those of the Valkey store do. It compares every header all the same, and says where one was
 * another than expected that needn't have been compared: there a Valkey would have overwritten it.
 */
import { MemoryStore, type MemoryStoreOptions } from '../../src/store/memory.js';
import type { MemoryDataset } from '../../src/store/memory-dataset.js';
import type { Commit, CommitResult, StoreFacts } from '../../src/store/store.js';

/** Whose turn it is in a dataset: another object whenever a commit comes from another store than the one before. */
interface Turn {
  readonly writer: object;
}

const turns = new WeakMap<MemoryDataset, Turn>();

export class EraStore extends MemoryStore {
  readonly #overwritten: (message: string) => void;
  #era = 0;
  /** The turn as the last answer told it. */
  #turn: Turn | null = null;
  /** The next commit begins an era: it is the first since the store was opened, or since one failed. */
  #ends = true;
  #writer = {};

  /** @param overwritten told of a header that would have been overwritten */
  constructor(options: MemoryStoreOptions, overwritten: (message: string) => void) {
    super(options);
    this.#overwritten = overwritten;
  }

  get era(): number {
    return this.#era;
  }

  override async open(): Promise<StoreFacts> {
    const facts = await super.open();
    this.#writer = {};
    this.#ends = true;
    return facts;
  }

  override async commit(commit: Commit): Promise<CommitResult> {
    const { dataset } = this;
    if (this.#ends) this.#era += 1;
    this.#ends = false;
    const era = this.#era;
    const holds = this.#turn?.writer === this.#writer && turns.get(dataset) === this.#turn;
    const wrong = commit.writes.find(
      (write) => write.era === era && dataset.header(write.key) !== write.expected,
    );
    const outcome = super.commit(commit);
    if (turns.get(dataset)?.writer !== this.#writer) turns.set(dataset, { writer: this.#writer });
    const turn = turns.get(dataset)!;
    try {
      const result = await outcome;
      if (era === this.#era && turn !== this.#turn) {
        this.#era += 1;
        this.#turn = turn;
      }
      return result;
    } catch (error) {
      this.#ends = true;
      if (holds && wrong !== undefined && (error as Error).message.includes('another header is there'))
        this.#overwritten(
          `the header of ${wrong.key} would have been overwritten, uncompared, in era ${era}`,
        );
      throw error;
    }
  }
}
