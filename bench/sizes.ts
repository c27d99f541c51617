/** How many bytes is a state, and a delta? For each type, in the forms that travel: a delta in a frame, a key in a snapshot. */
import { type ByteString, createDocument, type Document, writeFrame } from '../crdts/index.js';
import { pack } from '../src/replica/msgpack.js';
import type { Bench, Row } from './harness.js';

const NOW = Date.UTC(2026, 0, 1);
const KEY = 'user:1000000' as ByteString;
const bytes = (text: string) => text as ByteString;
const member = (i: number) => bytes(`member-${i + 1000}`);
const REPLICA = 'kq3v7xab.1';

/** An empty frame: what every delta shares with the others of its batch. */
const FRAME = pack(
  writeFrame({ replica: REPLICA, number: 1000, stamp: 2 ** 49, deps: new Map(), full: false, keys: [] }),
).length;

interface Example {
  readonly name: string;
  /** What the key holds before. */
  readonly before?: (document: Document) => void;
  /** The operation whose delta is measured. */
  readonly operate: (document: Document) => void;
}

const EXAMPLES: readonly Example[] = [
  { name: 'register: SET of 10 bytes', operate: (d) => d.set(KEY, bytes('0123456789')) },
  {
    name: 'register: DEL',
    before: (d) => d.set(KEY, bytes('0123456789')),
    operate: (d) => void d.delete(KEY),
  },
  { name: 'counter: INCR', operate: (d) => void d.increment(KEY) },
  {
    name: 'counter: INCR of one with 1,000,000',
    before: (d) => void d.increment(KEY, 999_999),
    operate: (d) => void d.increment(KEY),
  },
  {
    name: 'counter: SET over it',
    before: (d) => void d.increment(KEY),
    operate: (d) => d.set(KEY, bytes('0')),
  },
  { name: 'set: SADD of 11 bytes', operate: (d) => void d.add(KEY, member(0)) },
  {
    name: 'set: SADD of 100 members at once',
    operate: (d) => void d.add(KEY, ...Array.from({ length: 100 }, (_, i) => member(i))),
  },
  {
    name: 'set: SADD to 10,000 members',
    before: (d) => void d.add(KEY, ...Array.from({ length: 10_000 }, (_, i) => member(i))),
    operate: (d) => void d.add(KEY, member(10_000)),
  },
  {
    name: 'set: SREM',
    before: (d) => void d.add(KEY, member(0), member(1)),
    operate: (d) => void d.remove(KEY, member(0)),
  },
  {
    name: 'set: DEL of 10,000 members',
    before: (d) => void d.add(KEY, ...Array.from({ length: 10_000 }, (_, i) => member(i))),
    operate: (d) => void d.delete(KEY),
  },
  {
    name: 'set: after 1,000 adds and removals of one member',
    before(d) {
      for (let i = 0; i < 1000; i += 1) {
        d.add(KEY, member(0));
        d.remove(KEY, member(0));
      }
    },
    operate: (d) => void d.add(KEY, member(0)),
  },
  {
    name: 'expiry: EXPIRE of a string of 10 bytes',
    before: (d) => d.set(KEY, bytes('0123456789')),
    operate: (d) => void d.expire(KEY, NOW + 60_000),
  },
];

function measure({ name, before, operate }: Example): Row[] {
  const document = createDocument({ replica: REPLICA, now: () => NOW });
  before?.(document);
  document.takeDeltas();
  operate(document);
  const [delta] = document.takeDeltas();
  const snapshot = document.snapshot();
  const state = pack(snapshot).length - pack(snapshot.with(4, [])).length;
  const row = (what: string, value: number): Row => {
    return { bench: 'sizes', case: `${name} | ${what}`, value, unit: 'bytes', baseline: null, ratio: null };
  };
  return [row('delta', pack(delta).length - FRAME), row('state', state)];
}

export const sizesBench: Bench = {
  name: 'sizes',
  about: `bytes of deltas and states, with the key (12 bytes) and without what a frame costs once (${FRAME} bytes, of one replica)`,
  packages: [],
  async run({ done }) {
    for (const example of EXAMPLES) for (const row of measure(example)) done(row);
  },
};
