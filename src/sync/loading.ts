/**
 * Loading: brings an empty or lost region up to the others, tells how far it is, and whom to keep waiting meanwhile. When it
 * begins and ends is decided in bootstrap.ts; how states travel, in state-transfer.ts.
 */
import type { LoadingStatus } from '../engine.js';
import { LoadingError, StoppedError } from '../errors.js';
import type { PeerId } from '../mesh/mesh.js';
import type { Logger } from '../options.js';
import type { Cancel, Timers } from '../timers.js';
import { type Applied, Bootstrap, type BootstrapOptions, type Outcome } from './bootstrap.js';
import type { Member } from './members.js';
import type { TransferProgress } from './transfers.js';

export interface LoadingOptions extends BootstrapOptions {
  readonly timers: Timers;
  readonly logger: Logger;
  /** What happens to operations meanwhile. */
  readonly whileLoading: 'refuse' | 'serve';
  readonly members: () => readonly Member[];
  readonly present: () => readonly Member[];
  readonly applied: () => Applied;
  /** Says whether the store can be used. */
  readonly available: () => boolean;
  /** Asks a member for its state; resolves when that has ended, well or not. */
  readonly pull: (peer: PeerId) => Promise<void>;
  readonly progress: () => TransferProgress | null;
}

/** How often the state of things is judged, apart from when something was merged. */
const LOOK_MS = 100;
/** How often the log says how far it is. */
const TELL_MS = 2_000;
/** The rate is that of about the last so many milliseconds. */
const RATE_MS = 5_000;

interface Sample {
  readonly atMs: number;
  readonly keys: number;
}

const NOTHING = { peer: null, region: null, keys: 0, keysTotal: 0, bytes: 0 } as const;

export class Loading {
  readonly #options: LoadingOptions;
  readonly #bootstrap: Bootstrap;
  readonly #waiting = new Set<(error: Error | null) => void>();
  #timer: Cancel = () => {};
  #toldMs = 0;
  #pulling = false;
  #stopped = false;
  /** The transfer that was last looked at; it stays until another begins, so that the end can tell of it. */
  #last: TransferProgress | null = null;
  #samples: Sample[] = [];

  constructor(options: LoadingOptions) {
    this.#options = options;
    this.#bootstrap = new Bootstrap(options);
  }

  /** The error that operations meet; null = they are served. */
  refusal(): LoadingError | null {
    if (this.#bootstrap.sinceMs === null || this.#options.whileLoading === 'serve') return null;
    return new LoadingError(
      `this region is being brought up to the others: ${describeLoading(this.status!)}`,
    );
  }

  /** How far it is; null = not loading. */
  get status(): LoadingStatus | null {
    const sinceMs = this.#bootstrap.sinceMs;
    if (sinceMs === null) return null;
    const now = this.#options.timers.now();
    this.#look(now);
    if (this.#last === null) return { ...NOTHING, keysPerSecond: 0, secondsLeft: null, sinceMs };
    const { peer, keys, keysTotal, bytes } = this.#last;
    const keysPerSecond = this.#rate(now);
    const left = Math.max(0, keysTotal - keys);
    return {
      peer,
      region: this.#options.members().find((member) => member.peerId === peer)?.region ?? null,
      keys,
      keysTotal,
      bytes,
      keysPerSecond: Math.round(keysPerSecond),
      secondsLeft: keysTotal > 0 && keysPerSecond > 0 ? Math.ceil(left / keysPerSecond) : null,
      sinceMs,
    };
  }

  /** The store was opened, at the start or again. `empty`: nothing is applied in it. */
  opened(empty: boolean): void {
    const { timers, members } = this.#options;
    if (this.#bootstrap.opened(empty, members().length, timers.now()))
      this.#begun('nothing is in the store: loading from the other members begins');
  }

  /** A member has come, and introduced itself. */
  met(member: Member): void {
    const { timers, applied } = this.#options;
    if (this.#bootstrap.met(member, applied(), timers.now()))
      this.#begun('nothing is in the store, and a member with data came: loading begins');
    else this.check();
  }

  /** Something was merged, or someone came or spoke: looks whether that was all. */
  check(): void {
    if (this.#bootstrap.sinceMs === null || this.#stopped) return;
    const { timers, present, applied, available } = this.#options;
    const now = timers.now();
    this.#look(now);
    // While the store is away, nothing can move.
    if (!available()) this.#bootstrap.moved(now);
    const sinceMs = this.#bootstrap.sinceMs;
    const outcome = this.#bootstrap.judge(present(), applied(), now);
    if (outcome === 'loading') this.#pull();
    else this.#ended(outcome, now - sinceMs);
  }

  /** Resolves when nothing has to be loaded (any more); rejects with StoppedError when the node is stopped before. */
  whenReady(): Promise<void> {
    if (this.#stopped) return Promise.reject(new StoppedError());
    if (this.#bootstrap.sinceMs === null) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiting.add((error) => (error === null ? resolve() : reject(error)));
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#timer();
    this.#settle(new StoppedError());
  }

  #begun(message: string): void {
    const { logger, timers, whileLoading } = this.#options;
    this.#last = null;
    this.#samples = [];
    this.#toldMs = timers.now();
    logger.info({ whileLoading }, message);
    this.#schedule();
  }

  #schedule(): void {
    const { timers } = this.#options;
    this.#timer();
    this.#timer = timers.after(LOOK_MS, () => {
      this.check();
      if (this.#bootstrap.sinceMs === null || this.#stopped) return;
      const now = timers.now();
      if (now - this.#toldMs >= TELL_MS) {
        this.#toldMs = now;
        this.#options.logger.info({ ...this.status }, describeLoading(this.status!));
      }
      this.#schedule();
    });
  }

  /** Takes note of how far the transfer is that is under way. */
  #look(now: number): void {
    const current = this.#options.progress();
    if (current === null) return;
    const last = this.#last;
    if (last === null || last.peer !== current.peer || last.startedAtMs !== current.startedAtMs) {
      this.#samples = [{ atMs: current.startedAtMs, keys: 0 }];
      this.#bootstrap.moved(now);
    } else if (current.keys > last.keys || current.bytes > last.bytes) {
      this.#bootstrap.moved(now);
    }
    this.#last = current;
    if (now - this.#samples.at(-1)!.atMs >= LOOK_MS) this.#samples.push({ atMs: now, keys: current.keys });
    while (this.#samples.length > 2 && now - this.#samples[1]!.atMs > RATE_MS) this.#samples.shift();
  }

  #rate(now: number): number {
    const first = this.#samples[0];
    if (first === undefined || this.#last === null || now <= first.atMs) return 0;
    return ((this.#last.keys - first.keys) / (now - first.atMs)) * 1000;
  }

  #pull(): void {
    const { present, applied, available, pull, progress } = this.#options;
    if (this.#pulling || progress() !== null || !available()) return;
    const peer = this.#bootstrap.next(present(), applied());
    if (peer === null) return;
    this.#pulling = true;
    // Not looked at again at once: it ends at once while the pause after a broken transfer lasts.
    void pull(peer).finally(() => {
      this.#pulling = false;
    });
  }

  #ended(outcome: Exclude<Outcome, 'loading'>, tookMs: number): void {
    this.#timer();
    const { logger, patienceMs } = this.#options;
    const { peer, keys, bytes } = this.#last ?? NOTHING;
    const fields = { outcome, peer, keys, bytes, tookMs };
    if (outcome === 'gave up')
      logger.warn(
        fields,
        `loading is given up, because nothing has come for ${patienceMs / 1000} s: this node serves what it has, and the rest when it comes`,
      );
    else if (outcome === 'caught up')
      logger.info(fields, `loaded: caught up with the other members in ${(tookMs / 1000).toFixed(1)} s`);
    else logger.info(fields, 'nothing to load: the other members have nothing either');
    this.#settle(null);
  }

  #settle(error: Error | null): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const settle of waiting) settle(error);
  }
}

/** How far loading is, in one line. */
export function describeLoading(status: LoadingStatus): string {
  const { peer, region, keys, keysTotal, bytes, keysPerSecond, secondsLeft } = status;
  if (peer === null) return 'loading: waiting for a member that has the data';
  const of = keysTotal > 0 ? ` of ${keysTotal}` : '';
  const left = secondsLeft === null ? '' : `, ${secondsLeft} s left`;
  const mebi = (bytes / (1024 * 1024)).toFixed(1);
  return `loading from ${region ?? peer}: ${keys}${of} keys, ${mebi} MiB, ${keysPerSecond} keys/s${left}`;
}
