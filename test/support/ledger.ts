/**
 * A ledger: writes that tell afterwards exactly which of them took effect, and how often.
 *
 * Each entry is one MULTI…EXEC that counts and notes its own number in a set. A set forgets repetitions and a counter does
 * not, so a batch that was lost, halved or applied twice shows in the difference.
 */
import assert from 'node:assert/strict';
import type { Redis } from 'ioredis';
import type { Regions } from './regions.js';
import { waitFor } from './wait.js';

/** Every error that a client may see while something is broken. */
const CLEAR =
  /^(STOREDOWN it is unknown whether this write took effect|MASTERDOWN |EXECABORT |ERR this node is shutting down|Connection is closed|Command aborted due to connection close)/;

/** Entries under one name. */
export class Ledger {
  readonly acknowledged = new Set<string>();
  /** Messages of the errors that clients got. */
  readonly errors = new Map<string, number>();
  /** What the keys begin with: `NAME count` and `NAME entries`. */
  readonly name: string;
  #attempted = 0;

  constructor(name: string) {
    this.name = name;
  }

  /** Entries that were asked for. */
  get attempted(): number {
    return this.#attempted;
  }

  /** Writes some entries at once through a door; gives how many were acknowledged. */
  async write(client: Redis, count: number): Promise<number> {
    const before = this.acknowledged.size;
    const entries = Array.from({ length: count }, async () => {
      this.#attempted += 1;
      const entry = String(this.#attempted);
      try {
        const replies = await client
          .multi()
          .incr(`${this.name} count`)
          .sadd(`${this.name} entries`, entry)
          .exec();
        const failed = replies?.find(([error]) => error !== null)?.[0];
        if (replies === null || failed) throw failed ?? new Error('EXEC gave nothing');
        this.acknowledged.add(entry);
      } catch (error) {
        const { message } = error as Error;
        this.errors.set(message, (this.errors.get(message) ?? 0) + 1);
      }
    });
    await Promise.all(entries);
    return this.acknowledged.size - before;
  }

  /** Writes burst after burst until `over` says so or the connection ends. */
  async writeUntil(over: () => boolean, client: Redis, burst = 50): Promise<void> {
    while (!over() && client.status !== 'end') await this.write(client, burst);
  }

  /** Waits until so many entries more are acknowledged. */
  async grows(by: number, deadlineMs = 60_000): Promise<void> {
    const wanted = this.acknowledged.size + by;
    await waitFor(() => this.acknowledged.size >= wanted, {
      deadlineMs,
      what: `${by} entries more, after ${[...this.errors.keys()].join(' | ')}`,
    });
  }

  /** Checks in every one of these regions' Valkeys that each acknowledged entry is there, and that each entry counted once. */
  async check(regions: Pick<Regions, 'all'>): Promise<void> {
    for (const { name, reader } of regions.all) {
      const [count, entries] = await Promise.all([
        reader.get(`${this.name} count`),
        reader.smembers(`${this.name} entries`),
      ]);
      const there = new Set(entries);
      const lost = [...this.acknowledged].filter((entry) => !there.has(entry));
      assert.deepEqual(lost, [], `acknowledged entries that ${name} does not have`);
      assert.equal(Number(count), entries.length, `in ${name} each entry counts once`);
      assert(entries.length <= this.#attempted);
    }
  }

  /** Checks that every error so far says what happened. */
  checkErrors(): void {
    for (const message of this.errors.keys()) assert.match(message, CLEAR);
  }
}
