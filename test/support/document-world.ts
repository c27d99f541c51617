/** A few documents on one clock, whose deltas travel as bytes; and a record of who observed what, for the oracle. */
import assert from 'node:assert/strict';
import {
  type ByteString,
  createDocument,
  type Document,
  type DocumentOptions,
  type SetOp,
  type Site,
  STAMP_EPOCH_MS,
  type StringOp,
} from '../../crdts/index.js';
import { packr } from './crdt-history.js';
import { keySubject } from './crdt-keys.js';
import type { Past } from './crdt-oracle.js';
import type { Random } from './crdt-runs.js';

export const REPLICAS = ['nb.1', 'na.2', 'n.10'];
export const START = STAMP_EPOCH_MS + 1_000_000;

/** Through the bytes of a codec, as over a network. */
export const carry = (tree: unknown): unknown => packr.unpack(packr.pack(tree));

/** One operation that changed something. */
export interface Done<Op> {
  readonly key: ByteString;
  readonly op: Op;
  readonly id: number;
  readonly site: Site;
  readonly observed: ReadonlySet<number>;
}

interface Sent {
  readonly tree: unknown;
  readonly from: number;
  readonly ids: readonly number[];
}

export class DocumentWorld {
  now = START;
  readonly documents: Document[];
  readonly sent: Sent[] = [];
  readonly done: Done<StringOp | SetOp>[] = [];
  /** Operations that each document has seen. */
  readonly seen: Set<number>[];
  /** What was merged with each delta: a delta that was held is seen when it is merged. */
  readonly #waiting: Sent[][];
  readonly #fresh: number[][];
  readonly #options: Partial<DocumentOptions>;

  constructor(count = REPLICAS.length, options: Partial<DocumentOptions> = {}) {
    this.#options = options;
    this.documents = Array.from({ length: count }, (_, at) => this.make(at));
    this.seen = this.documents.map(() => new Set());
    this.#waiting = this.documents.map(() => []);
    this.#fresh = this.documents.map(() => []);
  }

  /** A document, new or restored. */
  make(at: number, snapshot?: unknown, replica = REPLICAS[at]!): Document {
    const now = () => this.now + 2 * at;
    return createDocument({
      replica,
      now,
      ...this.#options,
      ...(snapshot === undefined ? {} : { snapshot }),
    });
  }

  /** Notes an operation that was just done. */
  note(at: number, key: ByteString, op: StringOp | SetOp): void {
    const state = this.documents[at]!.state(key)!;
    const id = this.done.length;
    const stamp = state.string?.register.stamp ?? 0;
    const site = { replica: REPLICAS[at]!, stamp };
    this.done.push({ key, op, id, site, observed: new Set(this.seen[at]) });
    this.seen[at]!.add(id);
    this.#fresh[at]!.push(id);
  }

  /** Takes the deltas of a document. */
  take(at: number): void {
    const trees = this.documents[at]!.takeDeltas();
    // Operations between two merges are one delta; which of several each was in, only their union matters to who has all.
    const ids = this.#fresh[at]!;
    this.#fresh[at] = [];
    for (const [i, tree] of trees.entries())
      this.sent.push({ tree: carry(tree), from: at, ids: i === trees.length - 1 ? ids : [] });
  }

  /** Gives a delta to a document. What it depends on, a merge that was held back says by its marks. */
  deliver(at: number, sent: Sent): void {
    const document = this.documents[at]!;
    this.#waiting[at]!.push(sent);
    document.merge(sent.tree);
    this.#settleSeen(at);
  }

  /** Merges one document's snapshot into another. */
  transfer(from: number, at: number): void {
    this.take(from);
    this.documents[at]!.mergeSnapshot(carry(this.documents[from]!.snapshot()));
    for (const id of this.seen[from]!) this.seen[at]!.add(id);
    this.#settleSeen(at);
  }

  #settleSeen(at: number): void {
    const { merged } = this.documents[at]!;
    this.#waiting[at] = this.#waiting[at]!.filter(({ tree, from, ids }) => {
      const number = (tree as unknown[])[1] as number;
      if ((merged.get(REPLICAS[from]!)?.number ?? 0) < number) return true;
      for (const id of ids) this.seen[at]!.add(id);
      return false;
    });
  }

  /** Everything that was sent arrives everywhere, in any order, some of it twice. */
  settle(random: Random): void {
    for (const at of this.documents.keys()) this.take(at);
    for (const at of this.documents.keys()) {
      for (const sent of random.shuffle(this.sent)) {
        this.deliver(at, sent);
        if (random.chance(20)) this.deliver(at, random.pick(this.sent));
      }
      assert.equal(this.documents[at]!.held, 0, 'nothing is held back when everything has come');
    }
  }

  /** What one document has seen of one key, for the oracle. */
  pastOf<Op extends StringOp | SetOp>(at: number, key: ByteString): Past<Op> {
    const entries = this.done.filter((done) => done.key === key && this.seen[at]!.has(done.id));
    return {
      entries: entries as unknown as Past<Op>['entries'],
      observed: (later, earlier) => (later as unknown as Done<Op>).observed.has(earlier.id),
    };
  }

  /** Fails unless all documents hold the same states. */
  requireEqual(): void {
    const [first, ...others] = this.documents.map((document) => {
      for (const delta of document.takeDeltas()) assert.fail(`an unsent delta: ${JSON.stringify(delta)}`);
      const [, , , , keys] = document.snapshot() as [unknown, unknown, unknown, unknown, [string][]];
      return {
        digest: document.digest(),
        keys: keys.map(([key]) => [key, keySubject.encode(document.state(key as ByteString)!)]),
      };
    });
    for (const other of others) assert.deepEqual(other, first);
  }
}
