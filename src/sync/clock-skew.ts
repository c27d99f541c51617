/**
 * Clock skew: is it this node's clock that is wrong, or another member's? Nobody here knows the time, so most decide: a clock is off
 * when more than half of all members heard lately, this one included, agree with each other and not with it. Of two that
 * differ, nobody can say which is wrong.
 *
 * Why it matters: the later write wins, so a clock that is ahead beats writes that were made after its own. Frames from too far
 * ahead are held back (replica/causal-delivery.ts); this is about what is too little for that, and goes unnoticed.
 */
import type { ClockStatus } from '../engine.js';
import type { Logger } from '../options.js';
import type { Timers } from '../timers.js';
import type { Member } from './members.js';

export interface ClockJudgement {
  /** This node's clock minus the median of all, its own included; of an even number, the mean of the two in the middle. */
  readonly offsetMs: number;
  /** The greatest offset minus the least. */
  readonly spreadMs: number;
  /** Says whether this node's clock is off. */
  readonly off: boolean;
  /** Says it of each of the others. */
  readonly othersOff: readonly boolean[];
}

/** Judges by the other members' clocks minus this node's. Clocks agree when no two of them differ by more than the tolerance. */
export function judgeClocks(others: readonly number[], toleranceMs: number): ClockJudgement {
  const all = [0, ...others].sort((a, b) => a - b);
  const most = Math.floor(all.length / 2) + 1;
  const agreeing: [number, number][] = [];
  for (let i = 0; i + most <= all.length; i += 1) {
    const [least, greatest] = [all[i]!, all[i + most - 1]!];
    if (greatest - least <= toleranceMs) agreeing.push([least, greatest]);
  }
  const isOff = (ms: number): boolean =>
    agreeing.length > 0 && agreeing.every(([least, greatest]) => ms < least || ms > greatest);
  const middle = (all[Math.floor((all.length - 1) / 2)]! + all[Math.floor(all.length / 2)]!) / 2;
  return {
    // Not -0.
    offsetMs: Math.round(0 - middle),
    spreadMs: all.at(-1)! - all[0]!,
    off: isOff(0),
    othersOff: others.map(isOff),
  };
}

export interface ClockWatchOptions {
  readonly region: string;
  readonly members: () => readonly Member[];
  readonly timers: Timers;
  readonly logger: Logger;
  /** How far clocks may differ. */
  readonly toleranceMs: number;
  /** Members unheard for longer have no say. */
  readonly latelyMs: number;
}

/** What to do about it. */
const NTP = 'run NTP (chrony or systemd-timesyncd)';

/** Watches this node's clock, and says so in the log when what is to be said about it changes. */
export class ClockWatch {
  readonly #options: ClockWatchOptions;
  /** What was said last; '' = that all is well. */
  #said = '';

  constructor(options: ClockWatchOptions) {
    this.#options = options;
  }

  get status(): ClockStatus {
    return this.#look(this.#options.toleranceMs).status;
  }

  /** Looks, and tells the log of what is new. All is well again at half the tolerance, so that a clock at its edge doesn't fill the log. */
  tell(): void {
    const { logger, toleranceMs } = this.#options;
    const { status, key } = this.#look(toleranceMs);
    if (key === this.#said) return;
    const { warning, ...fields } = status;
    if (warning !== null) {
      this.#said = key;
      if (status.off) logger.error(fields, warning);
      else logger.warn(fields, warning);
    } else if (status.heard > 0 && this.#look(toleranceMs / 2).key === '') {
      this.#said = '';
      logger.info(fields, 'the clocks of all members heard agree again');
    }
  }

  #look(toleranceMs: number): { readonly status: ClockStatus; readonly key: string } {
    const { members, timers, latelyMs, region } = this.#options;
    const now = timers.now();
    const heard: Heard[] = [];
    for (const { refused, heardAtMs, clock, peerId, region: theirs } of members()) {
      const ms = clock.ms;
      if (refused === null && heardAtMs > 0 && Math.abs(now - heardAtMs) <= latelyMs && ms !== null)
        heard.push({ region: theirs, peerId, ms });
    }
    const { offsetMs, spreadMs, off, othersOff } = judgeClocks(
      heard.map(({ ms }) => ms),
      toleranceMs,
    );
    const wrong = heard.filter((_, i) => othersOff[i]);
    const differing = heard.filter(({ ms }) => Math.abs(ms) > toleranceMs);
    let warning: string | null = null;
    if (off) {
      warning = `the clock of this machine (${region}) is off, ${by(offsetMs)} most other members': ${NTP} here; until then the wrong writes may win`;
    } else if (wrong.length > 0) {
      warning = `clocks are off: ${list(wrong)} most members': ${NTP} there; until then the wrong writes may win`;
    } else if (differing.length > 0) {
      warning = `clocks differ: ${list(differing)} this one's (${region}), and it can't be told which is wrong: ${NTP} in every region; until then the wrong writes may win`;
    }
    const sides = (off ? [] : wrong.length > 0 ? wrong : differing).map(({ peerId }) => peerId).sort();
    return {
      status: { offsetMs, spreadMs, off, heard: heard.length, warning },
      key: warning === null ? '' : `${off} ${wrong.length > 0} ${sides.join(' ')}`,
    };
  }
}

interface Heard {
  readonly peerId: string;
  readonly region: string;
  readonly ms: number;
}

function list(members: readonly Heard[]): string {
  return members.map(({ region, ms }) => `that of ${region} is ${by(ms)}`).join(', ');
}

function by(ms: number): string {
  const size = Math.abs(ms);
  const text = size < 10_000 ? `${size} ms` : `${Math.round(size / 1000)} s`;
  return `${text} ${ms > 0 ? 'ahead of' : 'behind'}`;
}
