/**
 * Verify: are all regions equal, and if not, in which keys? Compared at a common cut (cut.ts), so that writes under way are no
 * differences. With `deep`, each region's Valkey is compared with its metadata too (deep-check.ts), and with `repair` put right.
 *
 * A verification counts for the members that took part. Who is away, refused, or fails is named, and the outcome says that not
 * all was verified.
 */
import { ArgumentError, LimitError } from '../errors.js';
import type { PeerId } from '../mesh/mesh.js';
import type { Member } from '../sync/members.js';
import type { Timers } from '../timers.js';
import { type ComparedKeys, findKeys, findSlots } from './compare.js';
import { allEqual, type Cut, type CutOptions, lookAtOnce, reachCut } from './cut.js';
import { checkDeep } from './deep.js';
import { type Ask, Participant } from './participants.js';
import {
  type DeepReport,
  type DifferingKey,
  hexDigest,
  type VerifyOptions,
  type VerifyReport,
} from './report.js';

export interface VerifierOptions {
  readonly self: { readonly peerId: PeerId; readonly region: string; readonly replica: () => string };
  /** All other members that are known. */
  readonly members: () => readonly Member[];
  readonly ask: Ask;
  readonly timers: Timers;
  readonly random: () => number;
  readonly stopped: AbortSignal;
}

export class Verifier {
  readonly #options: VerifierOptions;
  #running = false;

  constructor(options: VerifierOptions) {
    this.#options = options;
  }

  /** Verifies. Rejects with ArgumentError for options that aren't usable, LimitError while another verification runs here. */
  async verify(options: VerifyOptions = {}): Promise<VerifyReport> {
    const { timeoutMs = 30_000, repair = false } = options;
    const deep = options.deep === true || repair;
    if (!Number.isSafeInteger(timeoutMs) || timeoutMs < 100 || timeoutMs > 120_000)
      throw new ArgumentError('timeoutMs must be a whole number of milliseconds from 100 to 120,000');
    if (this.#running)
      throw new LimitError('a verification runs on this node already: wait until it is over');
    this.#running = true;
    try {
      return await this.#verify(timeoutMs, deep, repair);
    } finally {
      this.#running = false;
    }
  }

  #participants(): Participant[] {
    const { self, members, ask, timers, stopped } = this.#options;
    const of = (who: { peerId: PeerId; region: string; replica: string }): Participant =>
      new Participant(who, ask, timers, stopped);
    const all = [of({ ...self, replica: self.replica() })];
    for (const member of members()) {
      const participant = of(member);
      if (member.refused !== null) participant.fail(member.refused, 'refused');
      else if (member.connected && member.heardAtMs === 0)
        participant.fail('it is connected, and has not introduced itself yet');
      else if (!member.connected) participant.fail('it is away: not connected', 'away');
      all.push(participant);
    }
    return all;
  }

  async #verify(timeoutMs: number, deep: boolean, repair: boolean): Promise<VerifyReport> {
    const { timers, random } = this.#options;
    const startedMs = timers.now();
    const members = this.#participants();
    const reasons: string[] = [];
    const options = (): CutOptions => ({ members, timers, random, deadlineMs: timers.now() + timeoutMs });
    let cut = (await lookAtOnce(options())) ?? (await reachCut(options(), reasons));
    let slots: number[] = [];
    if (cut !== null && !allEqual(taking(members))) slots = await findSlots(members, cut.token);
    let found: DeepReport | null = null;
    if (deep) {
      const checked = await checkDeep(taking(members), repair, slots);
      found = checked.report;
      slots = [...new Set([...slots, ...checked.damagedSlots])].sort((a, b) => a - b);
    }
    let keys: readonly DifferingKey[] = [];
    let moreKeys = false;
    if (slots.length > 0 && cut !== null) {
      let compared: ComparedKeys = { keys: [], more: false };
      const again = await reachCut(options(), reasons, async (at: Cut) => {
        compared = await findKeys(members, at.token, slots);
      });
      if (again !== null) {
        keys = compared.keys;
        moreKeys = compared.more;
        cut = { ...again, heldMs: Math.max(cut.heldMs, again.heldMs) };
        if (keys.length === 0 && allEqual(taking(members)) && !moreKeys) slots = [];
      }
    }
    const others = members.filter(({ state }) => state !== 'compared');
    for (const { region, peerId, reason } of others)
      reasons.push(`region ${region || '(unknown)'} was not verified (${peerId}): ${reason}`);
    const different =
      slots.length > 0 ||
      keys.length > 0 ||
      (found?.findings.some(({ repair: done }) => done !== 'repaired') ?? false);
    return {
      outcome: different ? 'different' : reasons.length > 0 || cut === null ? 'unverified' : 'identical',
      regions: members.map((member) => member.report(hexDigest)),
      reasons,
      cut: cut === null ? null : Object.fromEntries([...cut.numbers].sort(([a], [b]) => (a < b ? -1 : 1))),
      heldMs: cut?.heldMs ?? 0,
      differingSlots: slots.length,
      differingKeys: keys,
      moreKeys,
      deep: found,
      tookMs: Math.max(0, timers.now() - startedMs),
    };
  }
}

function taking(members: readonly Participant[]): Participant[] {
  return members.filter(({ state }) => state === 'compared');
}
