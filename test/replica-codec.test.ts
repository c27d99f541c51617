/** Everything that comes back from bytes: msgpack, frames, stored headers and entries. Nothing hostile gets further than a DecodeError. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ByteString, fromUint8Array, utf8 } from '../crdts/bytes.js';
import { bodyDigest } from '../crdts/digest.js';
import { expiryType } from '../crdts/expiry.js';
import { writeFrame } from '../crdts/frame-wire.js';
import { emptyKeyState, type KeyState, mergeKeyState } from '../crdts/key-state.js';
import { setType } from '../crdts/or-set.js';
import { valuesType } from '../crdts/policy.js';
import { UNLOADED } from '../crdts/register.js';
import { stringType } from '../crdts/string-key.js';
import { decodeFrame, encodeFrame, FRAME_VERSION, keysOf } from '../src/replica/frame.js';
import {
  addEntries,
  decodeEntry,
  decodeRecord,
  emptyRecord,
  encodeEntry,
  encodeHeader,
  type KeyRecord,
} from '../src/replica/key-record.js';
import { pack, packBytes, unpack } from '../src/replica/msgpack.js';
import { plainHeader, readPlainHeader } from '../src/replica/plain-headers.js';
import { PlainRecord } from '../src/replica/plain-record.js';
import { decodeStateAnswer, encodeStateAnswer } from '../src/sync/state-answers.js';
import { check } from './support/crdt-runs.js';

const MAX = 1 << 20;

function refuses(bytes: Uint8Array | readonly number[], what?: string): void {
  assert.throws(() => unpack(Uint8Array.from(bytes)), { code: 'DECODE' }, what);
}

// ---- msgpack

test('trees of numbers, bytes, text and arrays come back as they were', () => {
  const leaf = fc.oneof(
    fc.maxSafeInteger(),
    fc.constant(null),
    fc.boolean(),
    fc.string({ maxLength: 300 }),
    fc.uint8Array({ maxLength: 300 }),
  );
  const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
    tree: fc.oneof({ maxDepth: 6 }, leaf, fc.array(tie('tree'), { maxLength: 40 })),
  }));
  const plain = (value: unknown): unknown =>
    value instanceof Uint8Array ? [...value] : Array.isArray(value) ? value.map(plain) : value;
  check(
    300,
    fc.property(tree, (value) => assert.deepEqual(plain(unpack(pack(value))), plain(value))),
  );
});

test('lengths that lie are refused before anything is allocated', () => {
  refuses([0xdd, 0xff, 0xff, 0xff, 0xff], 'four billion items');
  refuses([0xdc, 0xff, 0xff, 0xc0], 'sixty thousand items in one byte');
  refuses([0xc6, 0x7f, 0xff, 0xff, 0xff, 1], 'two gibibytes of bytes');
  refuses([0xdb, 0x7f, 0xff, 0xff, 0xff, 1], 'two gibibytes of text');
  refuses([0xc4, 5, 1], 'five bytes in one');
  refuses([0xa5, 0x61], 'five characters in one');
  // Each array says that it is as long as what is left, and holds the next: the sum would be quadratic.
  const nested: number[] = [];
  for (let i = 0; i < 5000; i += 1) nested.push(0xdc, 0x13, 0x88);
  const before = process.memoryUsage().heapUsed;
  refuses(nested, 'nested');
  assert.ok(process.memoryUsage().heapUsed - before < 20_000_000);
});

test('bytes that end too early, go on too long, or nest too deeply are refused', () => {
  refuses([]);
  refuses([0x92, 1]);
  refuses([1, 1], 'two values');
  refuses([0xcd, 1]);
  refuses([0xcb, 0, 0, 0]);
  refuses([...Array.from({ length: 13 }, () => 0x91), 1], 'thirteen deep');
  assert.deepEqual(unpack(Uint8Array.from([0x91, 0x91, 1])), [[1]]);
});

test('kinds that our forms do not have are refused: maps, extensions, timestamps', () => {
  refuses([0x81, 0xa1, 0x61, 1], 'a map');
  refuses([0xde, 0, 1, 0xa1, 0x61, 1], 'a map 16');
  refuses([0xd4, 1, 0], 'a fixed extension');
  refuses([0xc7, 1, 1, 0], 'an extension');
  refuses([0xd6, 0xff, 0, 0, 0, 0], 'a timestamp');
  refuses([0xc1], 'never used');
  refuses([0x91, 0x80], 'an empty map within');
});

test('any bytes are a tree or a DecodeError', () => {
  check(
    2000,
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      try {
        unpack(bytes);
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'DECODE');
      }
    }),
  );
});

// ---- frames

const at = (stamp: number, replica = 'a.1') => ({ replica, stamp });

/** Some state of every kind, with stamps up to `stamp`. */
function states(stamp: number, text: ByteString): KeyState[] {
  const string = stringType.mutate(stringType.empty(), { op: 'write', value: text }, at(stamp));
  const counted = stringType.mutate(stringType.empty(), { op: 'add', by: 7 }, at(stamp));
  const set = setType.mutate(setType.empty(), { op: 'add', members: [text, utf8('é')] }, at(stamp));
  const value = { bytes: text, region: utf8('eu') };
  const values = valuesType.mutate(valuesType.empty(), { op: 'write', value }, at(stamp));
  const expiry = expiryType.mutate(expiryType.empty(), { op: 'write', value: 1e12 }, at(stamp));
  return [
    { string },
    { string: counted },
    { set },
    { values },
    { expiry },
    { string, expiry },
    { set, string },
  ].map((part) => ({ ...emptyKeyState(), touched: stamp, ...part }));
}

test('frames come back as they were, whatever the bytes in them', () => {
  const bytes = fc.uint8Array({ maxLength: 50 }).map(fromUint8Array);
  check(
    200,
    fc.property(fc.integer({ min: 100, max: 2 ** 50 }), fc.nat(2 ** 40), bytes, (stamp, number, text) => {
      const keys = states(stamp, text).map((state, i) => [utf8(`key ${i}`), state] as const);
      const frame = encodeFrame({
        replica: 'a.1',
        number: number + 1,
        stamp,
        deps: new Map([['b.1', stamp - 1]]),
        full: number % 2 === 0,
        keys,
      });
      const back = decodeFrame(frame.bytes, MAX);
      assert.deepEqual({ ...back, deltas: keysOf(back) }, frame);
      const again = { ...back, keys: keysOf(back) };
      assert.equal(Buffer.compare(encodeFrame(again).bytes, frame.bytes), 0);
      assert.equal(Buffer.compare(pack(writeFrame(again)), frame.bytes), 0, 'as written from a tree');
    }),
  );
});

test('a frame of plain writes has the bytes that the codec gives its tree', () => {
  const text = fc.uint8Array({ maxLength: 300 }).map(fromUint8Array);
  const write = fc.record({ key: text, value: fc.option(text), behind: fc.nat(70_000), own: fc.boolean() });
  check(
    200,
    fc.property(fc.array(write, { maxLength: 40 }), (writes) => {
      const stamp = 2 ** 48;
      const keys = writes.map(({ key, value, behind, own }) => {
        const register = { stamp: stamp - behind, replica: own ? 'a.1' : 'b.1', value };
        return [key, { ...emptyKeyState(), touched: stamp, string: { register, counter: null } }] as const;
      });
      const frame = encodeFrame({ replica: 'a.1', number: 300, stamp, deps: new Map(), full: false, keys });
      assert.equal(Buffer.compare(pack(writeFrame({ ...frame, keys })), frame.bytes), 0);
    }),
  );
});

test('the header of a plain string comes back, and is short', () => {
  const epoch = fc.nat(2 ** 47).map((ms) => ms.toString(36));
  const replica = fc.tuple(fc.stringMatching(/^[0-9a-z]{8}$/), epoch).map(([id, began]) => `${id}.${began}`);
  const behind = fc.oneof(fc.nat(300), fc.nat(70_000), fc.nat(2 ** 28 - 1));
  check(
    300,
    fc.property(
      fc.integer({ min: 2 ** 41, max: 2 ** 53 - 1 }),
      behind,
      replica,
      fc.boolean(),
      (stamp, distance, id, deleted) => {
        const origin = { replica: id, stamp };
        const header = plainHeader(origin, distance, deleted)!;
        assert.deepEqual(readPlainHeader(header), { origin, behind: distance, deleted });
        assert.ok(header.length <= 24 && (distance > 127 || header.length === 21));
        const record = PlainRecord.fromHeader(utf8('k'), header, 0)!;
        assert.equal(record.header, header);
        const back = decodeRecord(utf8('k'), { header, value: utf8('v'), entries: new Map() }, ALL);
        const value = deleted ? null : utf8('v');
        assert.deepEqual(back.state.string?.register, { replica: id, stamp: stamp - distance, value });
        assert.equal(back.state.touched, stamp);
        assert.equal(encodeHeader(back), header);
      },
    ),
  );
});

test('replica ids of another form stand in a header of the other form; damaged headers are a DecodeError', () => {
  for (const id of ['a.1', 'abcdefgh.01', 'abcdefgh.', 'ABCDEFGH.1', `abcdefgh.${'z'.repeat(10)}`])
    assert.equal(plainHeader({ replica: id, stamp: 5000 }, 1, false), null, id);
  const good = plainHeader({ replica: 'abcdefgh.1', stamp: 2 ** 40 }, 300, false)!;
  const bad = [
    good.slice(0, 20),
    good.slice(0, -1),
    `${good}\x00`,
    `${good.slice(0, 20)}\x80\x00`,
    `${good.slice(0, 20)}\xff\xff\xff\xff\x01`,
    `\x01\xff${good.slice(2)}`,
    `${good.slice(0, 8)}\xff${good.slice(9)}`,
    `\x01${'\x00'.repeat(7)}${good.slice(8)}`,
  ] as ByteString[];
  for (const header of bad)
    assert.throws(() => readPlainHeader(header), { code: 'DECODE' }, JSON.stringify(header));
});

test('the header of a plain string has the bytes that the codec gives its tree', () => {
  const replica = fc.stringMatching(/^[!-~]{1,64}$/);
  const behind = fc.oneof(fc.nat(300), fc.nat(70_000), fc.nat(2 ** 40));
  check(
    300,
    fc.property(
      fc.integer({ min: 2 ** 41, max: 2 ** 50 }),
      behind,
      replica,
      fc.boolean(),
      (touched, d, id, gone) => {
        const register = { stamp: touched - d, replica: id, value: gone ? null : utf8('v') };
        const state = { ...emptyKeyState(), touched, string: { register, counter: null } };
        const header = encodeHeader({ ...emptyRecord(utf8('k')), state });
        assert.equal(header, packBytes([touched, [id], 1, [d, 0, gone ? 0 : 1]]));
      },
    ),
  );
});

test('every malformed part of a frame is a DecodeError', () => {
  const good: unknown[] = [FRAME_VERSION, 1, 100, ['a.1'], [], 1, [['k', 1, [[0, 0, 'v']]]]];
  decodeFrame(pack(good), MAX);
  const bad: [what: string, index: number, value: unknown][] = [
    ['version', 0, FRAME_VERSION + 1],
    ['number 0', 1, 0],
    ['number as text', 1, '1'],
    ['number as fraction', 1, 1.5],
    ['stamp 0', 2, 0],
    ['stamp beyond 2^53', 2, 2 ** 53],
    ['no replicas', 3, []],
    ['a replica twice', 3, ['a.1', 'a.1']],
    ['a replica with a space', 3, ['a 1']],
    ['a long replica', 3, ['a'.repeat(65)]],
    ['a dependency outside the table', 4, [7, 0]],
    ['half a dependency', 4, [0]],
    ['a dependency after the frame', 4, [0, -1]],
    ['full that is neither 0 nor 1', 5, 2],
    ['no keys', 6, null],
    ['a key that is no array', 6, ['k']],
    ['an unknown type', 6, [['k', 99, []]]],
    ['tags out of order', 6, [['k', 2, [[0, 0], [[0, 0], ['m']], 0], 1, [[0, 0, 'v']]]]],
    ['an empty sub-state', 6, [['k', 1, [[]]]]],
    ['a tag without a body', 6, [['k', 1]]],
    ['a value over the limit', 6, [['k', 1, [[0, 0, 'v'.repeat(MAX + 1)]]]]],
    ['a key over the limit', 6, [['k'.repeat(MAX + 1), 1, [[0, 0, 'v']]]]],
    ['text that is not ASCII', 6, [['é', 1, [[0, 0, 'v']]]]],
    ['a member whose context denies it', 6, [['k', 2, [[], [[0, 0], ['m']], 0]]]],
  ];
  for (const [what, index, value] of bad) {
    const tree = [...good];
    tree[index] = value;
    assert.throws(() => decodeFrame(pack(tree), MAX), { code: 'DECODE' }, what);
  }
  for (const tree of [null, 'frame', [], good.slice(0, 6), [...good, 1]])
    assert.throws(() => decodeFrame(pack(tree), MAX), { code: 'DECODE' });
});

test('every cut and every changed byte of a frame is refused or understood, never a crash', () => {
  const keys = states(1000, utf8('text')).map((state, i) => [utf8(`key ${i}`), state] as const);
  const { bytes } = encodeFrame({
    replica: 'a.1',
    number: 3,
    stamp: 1000,
    deps: new Map(),
    full: true,
    keys,
  });
  check(
    1500,
    fc.property(
      fc.nat(bytes.length - 1),
      fc.nat(255),
      fc.nat(bytes.length),
      fc.boolean(),
      (spot, value, cut, whole) => {
        const changed = Uint8Array.from(whole ? bytes : bytes.subarray(0, cut));
        if (spot < changed.length) changed[spot] = value;
        try {
          decodeFrame(changed, MAX);
        } catch (error) {
          assert.equal((error as { code?: string }).code, 'DECODE', String(error));
        }
      },
    ),
  );
});

// ---- stored keys

function record(state: KeyState): KeyRecord {
  return { ...emptyRecord(utf8('key')), state, membersDigest: 12345 };
}

const ALL = { value: true, whole: true, members: [] };

test('headers and entries come back as they were stored', () => {
  for (const text of ['', 'text', '\xff\x00 bytes']) {
    for (const state of states(1000, text as ByteString)) {
      const stored = record(state);
      const header = encodeHeader(stored);
      const entries = new Map<ByteString, ByteString>();
      for (const [member, dots] of state.set?.entries ?? []) entries.set(member, encodeEntry(dots));
      // A lone delta isn't whole; stored sets say how many members they have.
      if (state.set !== null) state.set.size = entries.size;
      const value = state.string?.register.stamp ? (text as ByteString) : null;
      const back = decodeRecord(utf8('key'), { header: encodeHeader(stored), value, entries }, ALL);
      assert.equal(typeof header, 'string');
      assert.equal(bodyDigest(utf8('key'), back.state), bodyDigest(utf8('key'), state));
      assert.deepEqual(back.state.string, state.string);
      assert.deepEqual(back.state.values, state.values);
      assert.deepEqual(back.state.expiry, state.expiry);
      assert.deepEqual(back.state.set?.entries, state.set?.entries);
      assert.equal(back.state.touched, 1000);
    }
  }
});

test('a value that stands natively is not in the header, and is missing when it is gone natively', () => {
  const [state] = states(1000, 'secret-value' as ByteString);
  const header = encodeHeader(record(state!));
  assert.ok(!header.includes('secret-value'));
  const unasked = decodeRecord(
    utf8('key'),
    { header, value: null, entries: new Map() },
    { ...ALL, value: false },
  );
  assert.equal(unasked.state.string?.register.value, UNLOADED);
  assert.equal(unasked.nativeMissing, false);
  const gone = decodeRecord(utf8('key'), { header, value: null, entries: new Map() }, ALL);
  assert.equal(gone.nativeMissing, true);
});

test('a value that increments add to, that a set hides, or that has a deadline stands in the header', () => {
  const [string, counted, set, , expiry] = states(1000, 'hidden-value' as ByteString);
  for (const other of [counted, set, expiry]) {
    const state = emptyKeyState();
    mergeKeyState(state, string!);
    if (other === set) {
      const members = [utf8('m')];
      const later = setType.mutate(setType.empty(), { op: 'add', members }, at(2000));
      mergeKeyState(state, { ...emptyKeyState(), touched: 2000, set: later });
    } else mergeKeyState(state, other!);
    const header = encodeHeader(record(state));
    assert.ok(header.includes('hidden-value'));
    const back = decodeRecord(
      utf8('key'),
      { header, value: null, entries: new Map() },
      { ...ALL, value: false },
    );
    assert.equal(back.state.string?.register.value, 'hidden-value');
  }
});

test('a set that is loaded in parts knows what it was asked for, absent members too', () => {
  const stored = emptyKeyState();
  const members = ['a', 'b', 'c'].map(utf8);
  mergeKeyState(stored, {
    ...emptyKeyState(),
    touched: 10,
    set: setType.mutate(setType.empty(), { op: 'add', members }, at(10)),
  });
  const header = encodeHeader(record(stored));
  const entry = encodeEntry([at(10)]);
  const some = { value: false, whole: false, members: [utf8('a'), utf8('x')] };
  const part = decodeRecord(
    utf8('key'),
    { header, value: null, entries: new Map([[utf8('a'), entry]]) },
    some,
  );
  assert.equal(part.state.set?.whole, false);
  assert.equal(part.state.set?.size, 3);
  assert.deepEqual(part.state.set?.entries.get(utf8('x')), []);
  addEntries(
    part,
    { header, value: null, entries: new Map(members.map((member) => [member, entry])) },
    { whole: true, members: [] },
  );
  assert.equal(part.state.set?.whole, true);
  assert.deepEqual([...part.state.set!.entries.keys()].sort(), ['a', 'b', 'c']);
});

test('damaged stored bytes are a DecodeError', () => {
  const headers: unknown[] = [
    5,
    [],
    ['x', []],
    [10, 'no table'],
    [10, ['a.1'], 99, []],
    [10, ['a.1'], 1, 5],
    [10, ['a.1'], 1, [11, 0, 1]],
    [10, ['a.1'], 1, [0, 3, 1]],
    [10, ['a.1'], 1, [0, 0, 2]],
    [10, ['a.1'], 2, [[0, 0]]],
    [10, ['a.1'], 2, [[0, 0], 'many', 1]],
    [10, ['a.1'], 3, 7],
    [10, ['a.1'], 4, [[], [0]]],
    [10, ['a.1'], 1],
  ];
  for (const tree of headers) {
    const loaded = { header: packBytes(tree), value: null, entries: new Map() };
    assert.throws(() => decodeRecord(utf8('key'), loaded, ALL), { code: 'DECODE' }, JSON.stringify(tree));
  }
  for (const header of ['', '\xc1', 'junk bytes'] as ByteString[]) {
    assert.throws(() => decodeRecord(utf8('key'), { header, value: null, entries: new Map() }, ALL), {
      code: 'DECODE',
    });
  }
  for (const tree of [5, ['a.1'], ['a.1', -1], [7, 7], ['é', 1]])
    assert.throws(() => decodeEntry(packBytes(tree)), { code: 'DECODE' }, JSON.stringify(tree));
});

// ---- whole states, as transfers send them

test('whole states come back; parts of sets, and states without a stamp, are refused', () => {
  const whole = emptyKeyState();
  for (const part of states(1000, utf8('v'))) mergeKeyState(whole, part);
  const answer = {
    kind: 'keys' as const,
    slotsDone: 3,
    states: [
      [utf8('k'), whole],
      ['\xff' as ByteString, states(500, utf8('w'))[0]!],
    ] as [ByteString, KeyState][],
  };
  const back = decodeStateAnswer(encodeStateAnswer(answer), MAX);
  assert.ok(back.kind === 'keys' && back.slotsDone === 3);
  assert.deepEqual(
    back.states.map(([key]) => key),
    ['k', '\xff'],
  );
  assert.deepEqual(back.states[0]![1], whole);
  const bad: unknown[] = [
    'x',
    ['x'],
    [[0, ['a.1'], 'k']],
    [[10, ['a.1'], 5]],
    [[10, ['a.1'], 'k', 2, [[0, 0], [[0, 0], ['m']], 0]]],
    [[10, ['a.1'], 'k'.repeat(MAX + 1)]],
  ];
  for (const tree of bad) assert.throws(() => decodeStateAnswer(pack([1, 0, tree]), MAX), { code: 'DECODE' });
});
