/** Compares members at a cut: which slots differ, which of their keys, and what each member holds of those. */
import type { ByteString } from '../../crdts/bytes.js';
import { addDigests } from '../../crdts/digest.js';
import { readable } from '../../crdts/explain.js';
import type { ExplainedKey } from '../../crdts/explanation.js';
import { DecodeError } from '../errors.js';
import { keySlot } from '../store/slots.js';
import { MAX_KEYS, MAX_SLOTS, MAX_STATES } from './limits.js';
import type { Participant } from './participants.js';
import { type DifferingKey, hexDigest } from './report.js';
import { bytesFrom, digestFrom, digestsFrom, toBytes } from './wire.js';

const taking = (members: readonly Participant[]): Participant[] =>
  members.filter(({ state }) => state === 'compared');

/** Asks for the digests by slot that members kept at a cut; gives the slots that differ. Who claims another total than they have fails. */
export async function findSlots(members: readonly Participant[], token: string): Promise<number[]> {
  await Promise.all(
    taking(members).map(async (member) => {
      const slots = await member.ask(['slots', token], digestsFrom);
      if (slots === null) return;
      let total = 0;
      for (const digest of slots.values()) total = addDigests(total, digest);
      if (total === member.digest) member.slots = slots;
      else member.fail('the digests that it gives of its slots are not what it said of all');
    }),
  );
  const compared = taking(members);
  const differing = new Set<number>();
  for (const slot of new Set(compared.flatMap(({ slots }) => [...slots.keys()])))
    if (compared.some(({ slots }) => (slots.get(slot) ?? 0) !== (compared[0]!.slots.get(slot) ?? 0)))
      differing.add(slot);
  return [...differing].sort((a, b) => a - b);
}

export interface ComparedKeys {
  readonly keys: readonly DifferingKey[];
  readonly more: boolean;
}

/** Compares the keys of some slots one by one; the members must be held at a cut. */
export async function findKeys(
  members: readonly Participant[],
  token: string,
  slots: readonly number[],
): Promise<ComparedKeys> {
  let more = slots.length > MAX_SLOTS;
  const asked = slots.slice(0, MAX_SLOTS);
  const held = new Map<Participant, Map<ByteString, number>>();
  await Promise.all(
    taking(members).map(async (member) => {
      const found = await member.ask(['keys', token, ...asked], (parts) => readKeys(parts, asked));
      if (found === null) return;
      held.set(member, found.keys);
      if (found.more) more = true;
    }),
  );
  const differing: ByteString[] = [];
  for (const key of new Set([...held.values()].flatMap((keys) => [...keys.keys()]))) {
    const digests = new Set([...held.values()].map((keys) => keys.get(key) ?? 0));
    if (digests.size > 1) differing.push(key);
  }
  if (differing.length > MAX_STATES) more = true;
  const shown = differing.slice(0, MAX_STATES);
  const states = new Map<Participant, (ExplainedKey | null)[]>();
  if (shown.length > 0)
    await Promise.all(
      taking([...held.keys()]).map(async (member) => {
        const found = await member.ask(['states', token, ...shown.map(toBytes)], (parts) =>
          readStates(parts, shown.length),
        );
        if (found !== null) states.set(member, found);
      }),
    );
  const keys = shown.map(
    (key, at): DifferingKey => ({
      key: readable(key),
      slot: keySlot(key),
      regions: [...held].map(([member, digests]) => {
        const digest = digests.get(key);
        return {
          region: member.region,
          peerId: member.peerId,
          digest: digest === undefined ? null : hexDigest(digest),
          state: states.get(member)?.[at] ?? null,
        };
      }),
    }),
  );
  return { keys, more };
}

function readKeys(
  [more, ...flat]: unknown[],
  slots: readonly number[],
): { more: boolean; keys: Map<ByteString, number> } {
  if (flat.length > 2 * MAX_KEYS) throw new DecodeError(`more than ${MAX_KEYS} keys came`);
  const keys = new Map<ByteString, number>();
  for (let i = 0; i < flat.length; i += 2) {
    const key = bytesFrom(flat[i], 'key');
    if (!slots.includes(keySlot(key))) throw new DecodeError('a key came of a slot that was not asked for');
    keys.set(key, digestFrom(flat[i + 1]));
  }
  return { more: more === 1, keys };
}

function readStates(parts: unknown[], expected: number): (ExplainedKey | null)[] {
  if (parts.length !== expected) throw new DecodeError('other states came than were asked for');
  return parts.map((part) => {
    if (part === null) return null;
    if (typeof part !== 'string') throw new DecodeError('a state is not text');
    let state: unknown;
    try {
      state = JSON.parse(part);
    } catch (cause) {
      throw new DecodeError('a state is not JSON', { cause });
    }
    if (typeof state !== 'object' || state === null || Array.isArray(state))
      throw new DecodeError('a state is not an object');
    return state as ExplainedKey;
  });
}
