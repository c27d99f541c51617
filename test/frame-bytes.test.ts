/** Frames read from their bytes say what the msgpack library and readFrame say, or refuse with the same code. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import {
  type ByteFrame,
  type ByteString,
  compareBytes,
  createDocument,
  type Document,
  type FrameContent,
  type KeyState,
  readByteFrame,
  readFrame,
  readFrameBytes,
  statesOfPlain,
  utf8,
  writeFrame,
} from '../crdts/index.js';
import { pack, unpack } from '../src/replica/msgpack.js';
import { Random } from './support/crdt-runs.js';
import { disturb } from './support/crdt-trees.js';

const MAX = 3000;
const NOW = Date.UTC(2026, 0, 1);

/** The lengths at which msgpack's spelling changes, and those beside them. */
const LENGTHS = [0, 1, 12, 15, 16, 17, 31, 32, 33, 255, 256, 257, MAX, MAX + 1];

function randomBytes(random: Random): ByteString {
  const length = random.chance(50) ? random.below(20) : random.pick(LENGTHS);
  const text = 'k'.repeat(Math.max(0, length - 1)) + String.fromCharCode(97 + random.below(26));
  return (random.chance(15) ? `${text.slice(1)}\xe9` : text.slice(0, length)) as ByteString;
}

type Kind = 'plain' | 'sets' | 'mixed';

/** Counts something, up or down, by steps of any size. */
function count(document: Document, key: ByteString, random: Random): void {
  const counter = random.chance(50) ? utf8(`#${random.below(4)}`) : (`#${key}` as ByteString);
  const by = random.pick([1, 1, 200, 70_000, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 45, 0]);
  document.increment(counter, random.chance(30) ? -by : by);
}

/** Does something to a document. */
function operate(document: Document, kind: Kind, random: Random, now: number): void {
  const key = kind === 'sets' ? utf8(`s${random.below(4)}`) : randomBytes(random);
  const what = kind === 'plain' ? random.below(2) : kind === 'sets' ? 2 : random.below(5);
  const type = document.type(key);
  if (kind === 'plain' && what === 1) count(document, key, random);
  else if (what === 0) document.set(key, randomBytes(random));
  else if (type === 'none' && what === 1) document.increment(key, random.below(1000));
  else if (type === 'none' || (type === 'set' && random.chance(70))) {
    const members = Array.from({ length: random.below(4) + 1 }, () => randomBytes(random));
    document.add(key, ...members);
  } else if (type === 'set' && random.chance(60))
    document.remove(key, ...document.members(key).slice(0, random.below(3)));
  else if (kind === 'mixed') document.expire(key, now + 1000);
  if (random.chance(kind === 'sets' ? 5 : 20)) document.delete(key);
}

/** The bytes of a few frames of one kind; mixed ones hold what isn't read directly, among much else. */
function framesOf(kind: Kind, random: Random): Uint8Array[] {
  let now = NOW;
  const document = createDocument({ replica: random.pick(['a', 'kq3v1000.1']), now: () => now });
  const other = createDocument({ replica: 'other.7', now: () => now });
  const frames: Uint8Array[] = [];
  for (let i = random.below(3); i >= 0; i -= 1) {
    for (let n = random.below(random.chance(10) ? 400 : 20); n >= 0; n -= 1) {
      operate(document, kind, random, now);
      if (random.chance(20)) now += random.below(random.pick([2, 300, 2_000_000]));
    }
    frames.push(...document.takeDeltas().map(pack));
    operate(other, kind, random, now);
    for (const delta of other.takeDeltas()) if (now - NOW < 60_000) document.merge(delta);
  }
  return frames;
}

/** What a frame says, in one form: its keys sorted, as plain writes are read apart from the others. */
function said(frame: FrameContent | ByteFrame): FrameContent {
  const { replica, number, stamp, deps, full } = frame;
  const keys = [...('plain' in frame ? statesOfPlain(frame.plain) : []), ...frame.keys];
  const shown = (state: KeyState) => utf8(inspect(state, { depth: null }));
  keys.sort(([a, one], [b, other]) => compareBytes(a, b) || compareBytes(shown(one), shown(other)));
  return { replica, number, stamp, deps, full, keys };
}

function outcome(read: () => FrameContent | ByteFrame): unknown {
  try {
    return said(read());
  } catch (error) {
    return (error as { code?: string }).code ?? error;
  }
}

/** Says whether the bytes were read directly. */
function compare(bytes: Uint8Array, seed: number): boolean {
  const expected = outcome(() => readFrame(unpack(bytes), MAX));
  assert.deepEqual(
    outcome(() => readFrameBytes(bytes, MAX, unpack)),
    expected,
    `seed ${seed}: ${Buffer.from(bytes).toString('hex')}`,
  );
  try {
    return readByteFrame(bytes, MAX, unpack) !== null;
  } catch {
    return false;
  }
}

/** The bytes of a tree; null when it holds what no msgpack does. */
function packed(tree: unknown): Uint8Array | null {
  try {
    return pack(tree);
  } catch {
    return null;
  }
}

function disturbed(bytes: Uint8Array, random: Random): Uint8Array {
  const copy = Uint8Array.from(bytes);
  for (let i = random.below(3); i >= 0; i -= 1) {
    if (random.chance(30)) return copy.subarray(0, random.below(copy.length));
    copy[random.below(copy.length)] = random.chance(50)
      ? random.below(256)
      : random.pick([
          0, 0x7f, 0x80, 0x90, 0x93, 0xa0, 0xc0, 0xc4, 0xca, 0xcb, 0xcc, 0xcd, 0xcf, 0xd0, 0xd9, 0xdc,
        ]);
  }
  return copy;
}

test('both readers agree on frames, and on what is left of them after damage', () => {
  const seed = Number(process.env.FRAMES_SEED ?? Math.floor(Math.random() * 1e9));
  const random = new Random(seed);
  for (const kind of ['plain', 'sets', 'mixed'] as const) {
    let [direct, damagedDirect] = [0, 0];
    for (let run = 0; run < 60; run += 1) {
      for (const bytes of framesOf(kind, random)) {
        if (compare(bytes, seed)) direct += 1;
        for (let i = 0; i < 10; i += 1) {
          if (compare(disturbed(bytes, random), seed)) damagedDirect += 1;
          const form = packed(disturb(unpack(bytes), random));
          if (form !== null) compare(form, seed);
        }
      }
    }
    assert.ok(direct > 10, `only ${direct} frames of the kind ${kind} were read directly`);
    assert.ok(damagedDirect > 10, `only ${damagedDirect} damaged frames of the kind ${kind} were readable`);
  }
});

test('every end of a frame that comes too early is refused', () => {
  const document = createDocument({ replica: 'kq3v1000.1', now: () => NOW });
  for (const length of LENGTHS)
    document.set(`key ${length}` as ByteString, 'v'.repeat(Math.min(length, MAX)) as ByteString);
  for (const length of LENGTHS)
    document.add(utf8('set'), utf8(`member ${length}`), 'm'.repeat(Math.min(length, MAX)) as ByteString);
  document.remove(utf8('set'), utf8('member 1'));
  const bytes = pack(document.takeDeltas()[0]);
  assert.ok(compare(bytes, 0));
  for (let end = 0; end < bytes.length; end += 1) {
    const refusal = { code: 'DECODE' };
    assert.throws(() => readFrameBytes(bytes.subarray(0, end), MAX, unpack), refusal, `${end} bytes`);
  }
  assert.throws(() => readFrameBytes(Buffer.concat([bytes, bytes.subarray(0, 1)]), MAX, unpack), {
    code: 'DECODE',
  });
});

test('rarer spellings of the same frame are left to the msgpack library, and mean the same', () => {
  const state: KeyState = {
    touched: 9,
    string: { register: { stamp: 5, replica: 'a', value: utf8('v') }, counter: null },
    set: null,
    values: null,
    expiry: null,
  };
  const tree = writeFrame({
    replica: 'a',
    number: 3,
    stamp: 9,
    deps: new Map([['b', 2]]),
    full: true,
    keys: [[utf8('k'), state]],
  });
  const usual = [...pack(tree)];
  assert.deepEqual(
    usual,
    [
      0x97, 1, 3, 9, 0x92, 0xa1, 97, 0xa1, 98, 0x92, 1, 7, 1, 0x91, 0x93, 0xa1, 107, 1, 0x91, 0x93, 4, 0,
      0xa1, 118,
    ],
  );
  assert.ok(compare(Uint8Array.from(usual), 0));
  const spelled = (at: number, ...bytes: number[]) => Uint8Array.from(usual.toSpliced(at, 1, ...bytes));
  for (const form of [
    spelled(20, 0xcc, 4),
    spelled(20, 0xcd, 0, 4),
    spelled(20, 0xd0, 4),
    spelled(20, 0xcb, 0x40, 0x10, 0, 0, 0, 0, 0, 0),
    spelled(14, 0xdc, 0, 3),
    spelled(15, 0xd9, 1),
    spelled(22, 0xda, 0, 1),
    spelled(3, 0xcc, 9),
    spelled(2, 0xd0, 3),
  ]) {
    assert.equal(compare(form, 0), false, Buffer.from(form).toString('hex'));
    assert.doesNotThrow(() => readFrameBytes(form, MAX, unpack));
  }
});

test('of the other keys in a frame, only those that are rare are left to the msgpack library', () => {
  const unpacked = (edit: (document: Document) => void): number[] => {
    const document = createDocument({ replica: 'a', now: () => NOW });
    edit(document);
    const bytes = pack(document.takeDeltas()[0]);
    const lengths: number[] = [];
    const frame = readFrameBytes(bytes, MAX, (part) => {
      lengths.push(part.length);
      return unpack(part);
    });
    assert.deepEqual(said(frame), said(readFrame(unpack(bytes), MAX)));
    return lengths.map((length) => (length === bytes.length ? Number.POSITIVE_INFINITY : length));
  };
  const members = Array.from({ length: 40 }, (_, i) => utf8(`m${i}`));
  const sets = (document: Document): void => {
    document.add(utf8('s'), ...members, '\xff' as ByteString);
    document.add(utf8('s'), utf8('m9'), utf8('n'));
    document.remove(utf8('s'), utf8('m1'));
    document.remove(utf8('t'), utf8('m1'));
  };
  assert.deepEqual(unpacked(sets), []);
  const mixed = unpacked((document) => {
    document.set(utf8('a'), utf8('1'));
    sets(document);
    document.increment(utf8('counter'), 1);
    document.set(utf8('y'), utf8('1'), NOW + 1000);
    document.set(utf8('z'), utf8('2'));
  });
  assert.equal(mixed.length, 1);
  assert.ok(mixed[0]! < 60, `${mixed[0]} bytes`);
  // Taking most keys one by one would be slower than all of them at once.
  assert.deepEqual(
    unpacked((document) => document.set(utf8('a'), utf8('1'), NOW + 1000)),
    [Number.POSITIVE_INFINITY],
  );
});

test('documents merge bytes as they merge trees', () => {
  const seed = Math.floor(Math.random() * 1e9);
  const random = new Random(seed);
  for (let run = 0; run < 60; run += 1) {
    let now = NOW;
    const options = { now: () => now };
    const sources = ['a', 'b'].map((replica) => createDocument({ replica, ...options }));
    const sent: unknown[] = [];
    for (let i = 0; i < 40; i += 1) {
      const source = random.pick(sources);
      const key = utf8(`k${random.below(8)}`);
      const counter = utf8(`n${random.below(3)}`);
      if (random.chance(25)) source.increment(counter, random.below(5) - 2);
      else if (random.chance(5)) source.delete(counter);
      else if (random.chance(60)) source.set(key, utf8(String(i)));
      else if (random.chance(40)) source.delete(key);
      else if (source.type(key) === 'none') source.add(key, utf8(`m${random.below(4)}`), utf8('n'));
      else if (source.type(key) === 'set') source.remove(key, utf8('n'));
      else source.expire(key, now + 5 + random.below(20));
      now += random.below(4);
      if (random.chance(40)) sent.push(...source.takeDeltas());
      if (random.chance(30))
        for (const delta of sent.slice(-3)) for (const each of sources) each.merge(delta);
    }
    for (const source of sources) sent.push(...source.takeDeltas());
    const [byTree, byBytes] = ['t', 'u'].map((replica) => createDocument({ replica, ...options }));
    const order = random.chance(50) ? sent : sent.toSorted(() => random.below(3) - 1);
    for (const delta of [...order, ...order]) {
      const changes = [byTree!.merge(delta), byBytes!.mergeBytes(pack(delta), unpack)];
      assert.equal(changes[0], changes[1], `seed ${seed}`);
      assert.equal(byTree!.digest(), byBytes!.digest(), `seed ${seed}`);
    }
    assert.deepEqual(byBytes!.snapshot(), byTree!.snapshot(), `seed ${seed}`);
    // Operations on what came as bytes mean the same.
    for (const key of byTree!.keys()) {
      for (const document of [byTree!, byBytes!]) {
        if (document.type(key) === 'set') document.add(key, utf8('more'));
        else if (key.startsWith('n')) document.increment(key, 5);
        else document.set(key, utf8('over'), 'keep');
      }
    }
    const trees = [byTree!, byBytes!].map((document) => unpack(pack(document.takeDeltas())));
    assert.equal(JSON.stringify(trees[1]).replaceAll('"u"', '"t"'), JSON.stringify(trees[0]), `seed ${seed}`);
    assert.equal(byTree!.digest() === byBytes!.digest(), byTree!.keys().length === 0);
  }
});
