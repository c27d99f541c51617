/**
 * How fast are deltas merged? Bytes of a codec → merged in-memory document.
 *
 * One replica does operations in batches, each batch is one message, and a second replica that starts empty merges them: many
 * keys once each, or one hot key. B3.1 is the public crdt-benchmarks' case of that name: 1,540 clients set one key concurrently.
 *
 * What to know before comparing: Yjs, Loro and Automerge are made for documents that people edit. They keep history (Loro and
 * Automerge all of it, Yjs what it needs for undo and later merges); we keep none, and so do less work. delta-crdts and crdts keep none either,
 * but copy or search whole states where we touch what a delta names. A batch of ours joins what it does to one key
 * into one delta; so do our batches for delta-crdts and crdts. We check every byte of a message first, as it may come from anyone.
 */
import { type Contender, type Kind, type Op, others, ours } from './contenders.js';
import { type Bench, type BenchOptions, compare, expect, type Row, type Side } from './harness.js';

const BENCH = 'merge';
const UNIT = 'updates/s';
const CLIENTS = 1540;
const BYTES = 'bytes per delta, registers, batches of 1000';

interface Work {
  readonly kind: Kind;
  readonly keys: 'many keys' | 'one key';
  readonly count: number;
  readonly batch: number;
}

const keyOf = (work: Work, i: number): string =>
  work.keys === 'one key' ? 'user:hot' : `user:${1_000_000 + i}`;
const payload = (i: number): string => `value-${i}`;

function batchesOf(work: Work): Op[][] {
  const batches: Op[][] = [];
  for (let from = 0; from < work.count; from += work.batch) {
    const length = Math.min(work.batch, work.count - from);
    batches.push(
      Array.from({ length }, (_, i) => ({ key: keyOf(work, from + i), value: payload(from + i) })),
    );
  }
  return batches;
}

/** What a key must hold once everything is merged. */
function expected(work: Work, i: number): unknown {
  const one = work.keys === 'one key';
  if (work.kind === 'registers') return payload(one ? work.count - 1 : i);
  return one ? work.count : 1;
}

function side(contender: Contender, whole: Work): Side {
  const work = { ...whole, count: Math.ceil(whole.count * shareOf(contender, whole)) };
  const messages = contender.encode(work.kind, batchesOf(work));
  const share = work.count === whole.count ? '' : ` (first ${work.count})`;
  return {
    name: contender.name + share,
    work: work.count,
    run: () => contender.merge(work.kind, messages),
    check(state) {
      for (const i of [0, work.count >> 1, work.count - 1]) {
        const key = keyOf(work, i);
        expect(contender.read(work.kind, state, key), expected(work, i), `${contender.name} ${key}`);
      }
    },
  };
}

/** Some take more than minutes for all of it, and ever longer per update: they are given the first part, which is in their favour. */
function shareOf({ name }: Contender, work: Work): number {
  if (name === '@automerge/automerge') return 0.05;
  if (name === 'delta-crdts' && work.kind === 'sets' && work.keys === 'one key' && work.batch === 1)
    return 0.1;
  return 1;
}

function casesOf(scale: number): Work[] {
  const works: Work[] = [];
  for (const keys of ['many keys', 'one key'] as const) {
    for (const kind of ['registers', 'counters', 'sets'] as const) {
      const count = Math.ceil((keys === 'one key' && kind === 'sets' ? 10_000 : 100_000) * scale);
      for (const batch of [1, 256, 65_536]) works.push({ kind, keys, count, batch });
    }
  }
  return works;
}

/** B3.1: each client's one message, merged in one order and, to see that it doesn't matter, in the other. */
function concurrent(contender: Contender, clients: number): Side {
  const messages = Array.from({ length: clients }, (_, i) =>
    contender.encode('registers', [[{ key: 'v', value: String(i) }]], i),
  ).flat();
  const reversed = messages.toReversed();
  return {
    name: contender.name,
    work: clients,
    run: () => contender.merge('registers', messages),
    check(state) {
      const other = contender.merge('registers', reversed);
      const value = contender.read('registers', other, 'v');
      expect(contender.read('registers', state, 'v'), value, `${contender.name}: the other order`);
      expect(Number(value) >= 0 && Number(value) < clients, true, `${contender.name}: a client's value`);
    },
  };
}

/** Bytes of a register's delta in batches of 1,000, against what it says plus 16. */
function bytesPerDelta(): Row {
  const work: Work = { kind: 'registers', keys: 'many keys', count: 10_000, batch: 1000 };
  const batches = batchesOf(work);
  const bytes = ours.encode('registers', batches).reduce((sum, message) => sum + message.length, 0);
  const said = batches.flat().reduce((sum, { key, value }) => sum + key.length + value.length + 16, 0);
  return {
    bench: BENCH,
    case: `${BYTES} | valkey-mesh`,
    value: bytes / work.count,
    unit: 'bytes',
    baseline: 'key + value + 16',
    ratio: bytes / said,
  };
}

export const mergeBench: Bench = {
  name: BENCH,
  about: `bytes → merged in-memory document. Yjs, Loro and Automerge keep history, which we don't: they do more, for people who edit
  documents. Keys of 12 bytes, values of 7 to 11. "(first n)" = that side was given only the first n updates, which is in its favour.`,
  packages: ['yjs', 'loro-crdt', '@automerge/automerge', 'delta-crdts', 'crdts', 'msgpackr'],

  async run(options: BenchOptions): Promise<void> {
    const add = (name: string, sides: readonly Side[]): void => compare(BENCH, name, UNIT, sides, options);
    for (const work of casesOf(options.scale)) {
      const name = `${work.kind}, ${work.keys}, batches of ${work.batch}, ${work.count} updates`;
      if (!options.wanted(name)) continue;
      const sides = [ours as Contender, ...others.filter(({ kinds }) => kinds.includes(work.kind))];
      add(
        name,
        sides.map((contender) => side(contender, work)),
      );
    }
    const clients = Math.ceil(CLIENTS * options.scale);
    const b31 = `B3.1, ${clients} clients set one key`;
    if (options.wanted(b31)) {
      const sides = [ours as Contender, ...others.filter(({ kinds }) => kinds.includes('registers'))];
      add(
        b31,
        sides.map((contender) => concurrent(contender, clients)),
      );
    }
    if (options.wanted(BYTES)) options.done(bytesPerDelta());
  },
};
