/** A deep verification, from the side of whoever asks for it: every member checks its store, and native strings are compared between them. */
import type { ByteString } from '../../crdts/bytes.js';
import { readable } from '../../crdts/explain.js';
import { isStamp } from '../../crdts/stamp.js';
import { DecodeError } from '../errors.js';
import { keySlot } from '../store/slots.js';
import { count } from '../sync/messages.js';
import { DEEP_SILENCE_MS, MAX_FINDINGS, MAX_REPAIRS, MAX_SLOTS } from './limits.js';
import type { Participant } from './participants.js';
import type { DeepReport, Finding, FindingKind } from './report.js';
import { bytesFrom, digestFrom, digestsFrom, slotFrom, textFrom, toBytes } from './wire.js';

const KINDS: readonly FindingKind[] = [
  'native missing',
  'native of another type',
  'native differs',
  'members differ',
  'expiry differs',
  'unreplicated',
  'header damaged',
  'entries damaged',
  'slot damaged',
];

interface Found {
  readonly member: Participant;
  readonly kind: FindingKind;
  readonly key: ByteString | null;
  readonly slot: number;
  readonly detail: string;
  repair: 'repaired' | 'left' | null;
  why: string | null;
}

interface Told {
  readonly contents: Map<number, number>;
  checked: number;
  inFlux: number;
  more: number;
}

/**
 * Checks, and with `repair` puts right what it found. `differing`: slots that were found to differ at a cut; when repairing, the members
 * exchange these. Members that fail are left behind.
 */
export async function checkDeep(
  members: readonly Participant[],
  repair: boolean,
  differing: readonly number[],
): Promise<{ readonly report: DeepReport; readonly damagedSlots: number[] }> {
  const found: Found[] = [];
  const told = new Map<Participant, Told>();
  await Promise.all(
    members.map(async (member) => {
      const mine: Told = { contents: new Map(), checked: 0, inFlux: 0, more: 0 };
      const ended = await member.askFor(['deep'], DEEP_SILENCE_MS, (parts) =>
        take(parts, member, mine, found),
      );
      if (ended) told.set(member, mine);
    }),
  );
  found.push(...(await compareContents(told)));
  const damagedSlots = [...new Set(found.filter(isMetadata).map(({ slot }) => slot))];
  if (repair) {
    const exchanged = differing.filter((slot) => !damagedSlots.includes(slot)).slice(0, MAX_SLOTS);
    await repairAll([...told.keys()], found, exchanged);
  }
  const sum = (of: (mine: Told) => number) => [...told.values()].reduce((total, mine) => total + of(mine), 0);
  const report: DeepReport = {
    checked: sum(({ checked }) => checked),
    inFlux: sum(({ inFlux }) => inFlux),
    findings: found.map(
      ({ member, kind, key, slot, detail, repair: done, why }): Finding => ({
        region: member.region,
        peerId: member.peerId,
        kind,
        key: key === null ? null : readable(key),
        slot,
        detail,
        repair: done,
        why,
      }),
    ),
    more: sum(({ more }) => more),
  };
  return { report, damagedSlots };
}

const isMetadata = ({ kind }: Found): boolean => kind === 'slot damaged' || kind === 'header damaged';

/** Takes in one message; says whether more must come. Throws DecodeError on what isn't one, or too many. */
function take([what, ...rest]: unknown[], member: Participant, mine: Told, found: Found[]): boolean {
  if (what === 'end') {
    [mine.checked, mine.inFlux, mine.more] = [count(rest[0]), count(rest[1]), count(rest[2])];
    return false;
  }
  if (what === 'slots') {
    for (const [slot, content] of digestsFrom(rest)) mine.contents.set(slot, content);
    return true;
  }
  if (what !== 'fault') throw new DecodeError('a message of a check is none');
  mine.more += 1;
  if (mine.more > MAX_FINDINGS) throw new DecodeError(`it tells more than ${MAX_FINDINGS} findings`);
  const kind = KINDS.find((known) => known === rest[0]);
  if (kind === undefined) throw new DecodeError('a finding is of no known kind');
  found.push({
    member,
    kind,
    key: rest[1] === null ? null : bytesFrom(rest[1], 'key'),
    slot: slotFrom(rest[2]),
    detail: textFrom(rest[3], 'detail', 512),
    repair: null,
    why: null,
  });
  return true;
}

type Contents = Map<string, { readonly key: ByteString; readonly replica: string; readonly digest: number }>;

/** Compares native strings whose bytes stand in no header: same key, same write, other bytes. */
async function compareContents(told: ReadonlyMap<Participant, Told>): Promise<Found[]> {
  const slots = new Set([...told.values()].flatMap(({ contents }) => [...contents.keys()]));
  const suspicious: number[] = [];
  for (const slot of slots)
    if (new Set([...told.values()].map(({ contents }) => contents.get(slot) ?? 0)).size > 1)
      suspicious.push(slot);
  const found: Found[] = [];
  for (let from = 0; from < suspicious.length; from += MAX_SLOTS) {
    const asked = suspicious.slice(from, from + MAX_SLOTS);
    const held = new Map<Participant, Contents>();
    await Promise.all(
      [...told.keys()].map(async (member) => {
        const contents = await member.ask(['content', ...asked], readContents, DEEP_SILENCE_MS);
        if (contents !== null) held.set(member, contents);
      }),
    );
    for (const write of new Set([...held.values()].flatMap((contents) => [...contents.keys()])))
      found.push(...judgeWrite(write, held));
  }
  return found;
}

/** Of one write: the members whose bytes are not those of the most, or in a tie of who wrote it. */
function judgeWrite(write: string, held: ReadonlyMap<Participant, Contents>): Found[] {
  const votes = [...held].flatMap(([member, contents]) => {
    const content = contents.get(write);
    return content === undefined ? [] : [{ member, ...content }];
  });
  const counts = new Map<number, number>();
  for (const { digest } of votes) counts.set(digest, (counts.get(digest) ?? 0) + 1);
  if (counts.size < 2) return [];
  const best = Math.max(...counts.values());
  const leading = [...counts].filter(([, number]) => number === best).map(([digest]) => digest);
  const [{ key, replica }] = votes as [(typeof votes)[number]];
  const identity = replica.slice(0, replica.indexOf('.') + 1);
  const maker = votes.find(({ member }) => member.replica.startsWith(identity))?.digest;
  const right = leading.length === 1 ? leading[0] : leading.find((digest) => digest === maker);
  return votes
    .filter(({ digest }) => digest !== right)
    .map(({ member }) => ({
      member,
      kind: 'native differs',
      key,
      slot: keySlot(key),
      detail: 'not the bytes that other regions have of the same write',
      repair: null,
      why: null,
    }));
}

function readContents(flat: unknown[]): Contents {
  const contents: Contents = new Map();
  for (let i = 0; i < flat.length; i += 4) {
    const key = bytesFrom(flat[i], 'key');
    const stamp = flat[i + 1];
    const replica = textFrom(flat[i + 2], 'replica id', 64);
    if (!isStamp(stamp)) throw new DecodeError('a write has no stamp');
    contents.set(`${stamp} ${replica} ${key}`, { key, replica, digest: digestFrom(flat[i + 3]) });
  }
  return contents;
}

/** Has each member repair what was found of it; metadata first, since values follow from them. */
async function repairAll(
  members: readonly Participant[],
  found: readonly Found[],
  exchanged: readonly number[],
): Promise<void> {
  for (const metadata of [true, false]) {
    await Promise.all(
      members.map(async (member) => {
        const mine: Pick<Found, 'kind' | 'key' | 'slot' | 'repair' | 'why'>[] = found.filter(
          (one) => one.member === member && isMetadata(one) === metadata,
        );
        if (metadata)
          for (const slot of exchanged)
            mine.push({ kind: 'slot damaged', key: null, slot, repair: null, why: null });
        for (let from = 0; from < mine.length; from += MAX_REPAIRS) {
          const batch = mine.slice(from, from + MAX_REPAIRS);
          const question = batch.flatMap(({ kind, key, slot }) => [kind, key && toBytes(key), slot]);
          const outcomes = await member.ask(
            ['repair', ...question],
            (parts) => parts.map((part) => textFrom(part, 'outcome', 1024)),
            10 * DEEP_SILENCE_MS,
          );
          for (const [i, one] of batch.entries()) {
            const outcome = outcomes?.[i] ?? member.reason ?? 'it did not say what it did';
            one.repair = outcome === 'repaired' ? 'repaired' : 'left';
            one.why = outcome === 'repaired' ? null : outcome;
          }
        }
      }),
    );
  }
}
