/**
 * Slots that have come to a server, and whether their keys are still there.
 *
 * A server that fails over to a replica that lacks the last moments shows by its record of commits. A slot that was moved to it leaves nothing
 * there, so a replica that lacks that slot's keys would look whole. So each slot that has come is counted as a commit, *after*
 * its keys and before the slot is used: a replica that lacks the keys lacks the count as well.
 *
 * Between a slot's coming and that count only the server itself can tell. It is the same process as before, and then it has what came to it; or it
 * has slots that it didn't have when it was last looked at, and is another process, and then nobody can tell: new epoch.
 * What isn't noticed: a slot that leaves and comes back between two looks.
 */
import { StaleCommitError, StoreResetError, StoreUnavailableError } from '../errors.js';
import type { Part } from './cluster-parts.js';
import { SLOTS } from './slots.js';

/** What a server says of itself. */
interface Look {
  readonly process: string;
  readonly runMs: number;
  readonly promoted: boolean;
  readonly slots: Uint8Array;
}

export class Arrivals {
  /** Processes that were looked at, as primaries. */
  readonly #processes = new Set<string>();
  /** The slots that each part's record speaks for. */
  readonly #counted = new WeakMap<Part, Uint8Array>();
  /** When it was last asked who serves what, before now; null = this is the first time. */
  #lookedMs: number | null = null;

  /** Everything was looked at that was known at a time, as performance.now() gives it. */
  looked(atMs: number): void {
    this.#lookedMs = atMs;
  }

  /**
   * Counts what has come to a part. Throws StoreResetError when it may be lost, StoreUnavailableError when the part's server doesn't know yet of `slots`.
   */
  async look(part: Part, slots: readonly number[]): Promise<void> {
    const runId = part.connection.session?.info.runId ?? '';
    const now = await count(part);
    const before = this.#counted.get(part);
    const more = before === undefined || now.slots.some((has, slot) => has > before[slot]!);
    if (more && this.#lookedMs !== null && !this.#isOld(now)) {
      throw new StoreResetError(
        `slots were moved to ${part.server}, and it was restarted or failed over before that was known: what came with them may be lost`,
      );
    }
    this.#processes.add(now.process);
    const missing = slots.find((slot) => now.slots[slot] === 0);
    if (missing !== undefined)
      throw new StoreUnavailableError(`slot ${missing} is on its way to ${part.server}`);
    this.#counted.set(part, now.slots);
    part.lookedAt = runId;
  }

  /** Says whether a process was a primary already when it was last asked who serves what, and has been one since. */
  #isOld({ process, runMs, promoted }: Look): boolean {
    if (this.#processes.has(process)) return true;
    return !promoted && runMs > performance.now() - (this.#lookedMs ?? 0) + 1000;
  }
}

async function count({ connection }: Part): Promise<Look> {
  for (let tries = 0; ; tries += 1) {
    try {
      const answer = await connection.commit('arrived', ({ session, seq, writer }) => [
        String(session),
        String(seq),
        writer,
      ]);
      if (answer !== null) return lookOf(answer);
    } catch (error) {
      // It was sent behind a commit that failed.
      if (!(error instanceof StaleCommitError) || tries > 20) throw error;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

/** Reads `DONE process seconds promoted ranges`. */
function lookOf(answer: string): Look {
  const [, process = '', seconds = '0', promoted, ranges = ''] = answer.split(' ');
  const slots = new Uint8Array(SLOTS);
  for (const range of ranges.split(',').filter((each) => each !== '')) {
    const [from, to] = range.split('-').map(Number);
    slots.fill(1, from, to! + 1);
  }
  return { process, runMs: Number(seconds) * 1000, promoted: promoted === '1', slots };
}
