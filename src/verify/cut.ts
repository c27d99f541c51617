/**
 * The common cut, from the side of whoever verifies: brings all members to have applied exactly the same frames, and reads
 * while they do.
 *
 * First without stopping anyone: where all members have applied the same and are equal, nothing need be held. Else:
 * 1. every member holds: it makes no frame, and tells what it has applied. The *cut* is the greatest number of each replica.
 * 2. each waits until it has applied exactly the cut, reads its digests, and tells them.
 * 3. only when all have done so are they let go. A member that was let go earlier would send new frames to one that isn't there yet.
 *
 * Equal digests at equal vectors count in any case. Different ones count only when every hold was in force until the end: a
 * member whose hold ran out may have given states of new frames to another, which shows in no vector.
 */
import { DecodeError } from '../errors.js';
import { count } from '../sync/messages.js';
import type { Timers } from '../timers.js';
import { sameNumbers } from './cut-member.js';
import { ANSWER_MS, MAX_HOLD_MS } from './limits.js';
import type { Participant } from './participants.js';
import { digestFrom, numbersFrom, numbersToWire, textFrom } from './wire.js';

export interface CutOptions {
  readonly members: readonly Participant[];
  readonly timers: Timers;
  readonly random: () => number;
  readonly deadlineMs: number;
}

/** What was reached. */
export interface Cut {
  readonly numbers: ReadonlyMap<string, number>;
  readonly heldMs: number;
  /** Names the digests that members keep of it; empty when nothing was held. */
  readonly token: string;
}

/** How often the cut may be raised during one hold: frames of members that are away may still come in. */
const MAX_RAISES = 3;

const taking = (members: readonly Participant[]): Participant[] =>
  members.filter(({ state }) => state === 'compared');

/** Compares without a hold: the cut when all members have applied the same and are equal at that, else null. */
export async function lookAtOnce({ members }: CutOptions): Promise<Cut | null> {
  const looks = await Promise.all(
    taking(members).map(async (member) => {
      const look = await member.ask(['look'], ([stable, total, keys, numbers]) => ({
        stable: stable === 1,
        total: digestFrom(total),
        keys: count(keys),
        numbers: numbersFrom(numbers),
      }));
      return look === null ? null : { member, ...look };
    }),
  );
  const found = looks.filter((look) => look !== null);
  const [first] = found;
  if (first === undefined) return null;
  for (const { stable, total, numbers } of found)
    if (!stable || total !== first.total || !sameNumbers(numbers, first.numbers)) return null;
  for (const { member, total, keys } of found) {
    member.digest = total;
    member.keys = keys;
  }
  return { numbers: first.numbers, heldMs: 0, token: '' };
}

/**
 * Brings the members to a cut; `atCut` runs there, while they are held. Gives null when there was none in time: `reasons` says why.
 * Members that fail are left behind, and say why.
 */
export async function reachCut(
  options: CutOptions,
  reasons: string[],
  atCut: (cut: Cut) => Promise<void> = async () => {},
): Promise<Cut | null> {
  const { members, timers, random, deadlineMs } = options;
  const whys = new Set<string>();
  for (let attempts = 0; timers.now() < deadlineMs; attempts += 1) {
    if (attempts === 0 || timers.now() + ANSWER_MS < deadlineMs) for (const member of members) member.retry();
    if (taking(members).length === 0) break;
    const token = Array.from({ length: 4 }, () => Math.floor(random() * 0x100000000).toString(36)).join('');
    const attempt = new Attempt(taking(members), token);
    const waitMs = await attempt.hold();
    let numbers: ReadonlyMap<string, number> | null = null;
    if (waitMs === null) {
      numbers = await attempt.come();
      if (numbers !== null) await atCut({ numbers, heldMs: 0, token });
    }
    const { heldMs, throughout } = await attempt.release();
    const late = members.some((member) => member.isSlow) && timers.now() + ANSWER_MS < deadlineMs;
    if (late) whys.add('a member did not answer in time');
    else if (numbers !== null && taking(members).length > 0) {
      if (throughout || allEqual(taking(members))) return { numbers, heldMs, token };
      whys.add('a member could not hold its operations until all had answered');
    } else {
      if (attempt.why !== '') whys.add(attempt.why);
    }
    // Two who verify at once must not meet again.
    const pauseMs = (waitMs ?? 0) + 10 + random() * 100;
    if (timers.now() + pauseMs >= deadlineMs) break;
    await new Promise<void>((resolve) => timers.after(pauseMs, resolve));
  }
  reasons.push(
    `no common cut was reached in time: ${[...whys].slice(0, 5).join('; ') || 'nobody could be asked'}`,
  );
  return null;
}

export function allEqual(members: readonly Participant[]): boolean {
  return members.every(({ digest }) => digest === members[0]!.digest);
}

/** One attempt, under one token. */
class Attempt {
  readonly #members: readonly Participant[];
  readonly #token: string;
  readonly #own = new Map<Participant, ReadonlyMap<string, number>>();
  why = '';

  constructor(members: readonly Participant[], token: string) {
    this.#members = members;
    this.#token = token;
  }

  /** Gives how long to wait when someone refused; null when all hold. */
  async hold(): Promise<number | null> {
    let waitMs: number | null = null;
    await Promise.all(
      this.#members.map(async (member) => {
        const answer = await member.ask(['hold', this.#token, MAX_HOLD_MS], ([granted, second, third]) =>
          granted === 1
            ? { numbers: numbersFrom(second) }
            : { reason: textFrom(second, 'reason'), waitMs: Math.min(count(third), 5 * MAX_HOLD_MS) },
        );
        if (answer === null) return;
        if ('numbers' in answer) {
          this.#own.set(member, answer.numbers);
          return;
        }
        waitMs = Math.max(waitMs ?? 0, answer.waitMs);
        this.why = `${member.region}: ${answer.reason}`;
      }),
    );
    return waitMs;
  }

  /** Brings all to the cut; null when that failed. */
  async come(): Promise<ReadonlyMap<string, number> | null> {
    const cut = this.#greatest();
    for (let raise = 0; raise <= MAX_RAISES; raise += 1) {
      const past: ReadonlyMap<string, number>[] = [];
      let late = false;
      await Promise.all(
        taking(this.#members).map(async (member) => {
          const answer = await member.ask(['cut', this.#token, ...numbersToWire(cut)], readCutAnswer);
          if (answer === null) late = true;
          else if (answer.kind === 'past') past.push(answer.numbers);
          else if (answer.kind === 'at') [member.digest, member.keys] = [answer.total, answer.keys];
          else {
            late = true;
            this.#late(member, answer.replicas, cut);
          }
        }),
      );
      if (late) return null;
      if (past.length === 0) return cut;
      for (const numbers of past)
        for (const [replica, number] of numbers) {
          if (number <= (cut.get(replica) ?? 0)) continue;
          cut.set(replica, number);
          this.why = `frames of ${replica} went on coming in while all were held: it is no member that could be asked`;
        }
    }
    return null;
  }

  /** Lets everyone go. Who has failed meanwhile isn't asked any more: its own timer ends its hold. */
  async release(): Promise<{ heldMs: number; throughout: boolean }> {
    let heldMs = 0;
    let throughout = true;
    await Promise.all(
      [...this.#own.keys()].map(async (member) => {
        const end = await member.ask(['release', this.#token], ([through, held]) => ({
          through: through === 1,
          heldMs: count(held),
        }));
        if (end === null) return;
        heldMs = Math.max(heldMs, Math.min(end.heldMs, MAX_HOLD_MS));
        if (!end.through) throughout = false;
      }),
    );
    return { heldMs, throughout };
  }

  /** The greatest numbers; who claims frames of a member that this member hasn't made fails. */
  #greatest(): Map<string, number> {
    const cut = new Map<string, number>();
    for (const [member, numbers] of this.#own) {
      for (const [replica, number] of numbers) {
        const maker = [...this.#own.keys()].find((other) => other.replica === replica);
        const made = maker === undefined ? number : (this.#own.get(maker)!.get(replica) ?? 0);
        if (number > made)
          member.fail(`it says it has applied frame ${number} of ${replica}, which has made ${made}`);
      }
    }
    for (const [member, numbers] of this.#own) {
      if (member.state !== 'compared') continue;
      for (const [replica, number] of numbers) cut.set(replica, Math.max(cut.get(replica) ?? 0, number));
    }
    return cut;
  }

  /** A member didn't come so far. Where only one says that there are such frames, that one is to blame. */
  #late(member: Participant, replicas: readonly string[], cut: ReadonlyMap<string, number>): void {
    const [replica] = replicas;
    if (replica === undefined) {
      this.why = `the hold of ${member.region} ran out before it had read`;
      return;
    }
    const number = cut.get(replica) ?? 0;
    const claiming = [...this.#own].filter(([, numbers]) => (numbers.get(replica) ?? 0) >= number);
    this.why = `${member.region} has not applied frame ${number} of ${replica}`;
    const others = [...this.#own.keys()].filter(({ state }) => state === 'compared').length;
    const [only] = claiming;
    if (claiming.length === 1 && others > 2 && only![0].replica !== replica)
      only![0].fail(`only it says that there is a frame ${number} of ${replica}`);
  }
}

type CutAnswer =
  | { readonly kind: 'at'; readonly total: number; readonly keys: number }
  | { readonly kind: 'past'; readonly numbers: ReadonlyMap<string, number> }
  | { readonly kind: 'late'; readonly replicas: readonly string[] };

function readCutAnswer([kind, ...rest]: unknown[]): CutAnswer {
  if (kind === 'at') return { kind, total: digestFrom(rest[0]), keys: count(rest[1]) };
  if (kind === 'past') return { kind, numbers: numbersFrom(rest[0]) };
  if (kind === 'late') return { kind, replicas: rest.map((replica) => textFrom(replica, 'replica id', 64)) };
  throw new DecodeError('an answer to a cut is none');
}
