/** State transfers send what differs: of many keys, of one big set, and after a break only what is left. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeFrame, type Frame } from '../src/replica/frame.js';
import { missingSince, totalDigest } from '../src/sync/state-transfer.js';
import { TouchedKeys } from '../src/sync/touched-keys.js';
import { add, increment, on, type ReplicaWorld, remove, replicaWorld, set } from './support/replica-world.js';
import { type Side, type TransferOptions, transfer } from './support/transfer-world.js';

const KEYS = 100_000;

async function sameDigests(a: Side, b: Side): Promise<void> {
  assert.equal(totalDigest(await a.store.digests()), totalDigest(await b.store.digests()));
}

async function fill(world: ReplicaWorld, count: number, value: (i: number) => string): Promise<void> {
  for (let at = 0; at < count; at += 5000) {
    const some = Array.from({ length: Math.min(5000, count - at) }, (_, i) => at + i);
    await Promise.all(some.map((i) => world.submit(set(`key:${i}`, value(i)))));
  }
  world.frames.length = 0;
}

test('of 100,000 keys that differ in 0.1 %, at most 1/18 of the bytes travel; in 1 %, 1/6; in three requests or fewer', async () => {
  const from = await replicaWorld({ id: 'from.1' });
  const to = await replicaWorld({ id: 'to.1' });
  await fill(from, KEYS, (i) => `value ${i}`);
  const full = await transfer(from, to);
  assert.equal(full.error, null);
  assert.equal(full.outcome?.keys, KEYS);
  await sameDigests(from, to);
  assert.ok(full.longest < 512 * 1024, 'no message holds more than a part');
  for (const [share, bound] of [
    [0.001, 18],
    [0.01, 6],
  ] as const) {
    for (let i = 0; i < KEYS * share; i += 1)
      await from.submit(set(`key:${(i * 7919) % KEYS}`, `new ${share}`));
    const some = await transfer(from, to);
    assert.equal(some.outcome?.keys, KEYS * share);
    assert.ok(some.requests <= 3);
    assert.ok(some.bytes <= full.bytes / bound, `${share}: ${some.bytes} of ${full.bytes} bytes`);
    await sameDigests(from, to);
  }
  const none = await transfer(from, to);
  assert.deepEqual([none.outcome?.keys, none.requests], [0, 1]);
  assert.ok(none.bytes < 1024, `${none.bytes} bytes to find that nothing differs`);
});

test('of a set of 100,000 members with 10 different, at most 1/100 of the bytes travel, in three requests, among 100,000 keys', async () => {
  const from = await replicaWorld({ id: 'from.1' });
  const to = await replicaWorld({ id: 'to.1' });
  await fill(from, KEYS, (i) => `value ${i}`);
  assert.equal((await transfer(from, to)).error, null);
  for (let at = 0; at < 100_000; at += 1000)
    await from.submit(add('s', ...Array.from({ length: 1000 }, (_, i) => `member ${at + i}`)));
  const full = await transfer(from, to);
  assert.equal(full.error, null);
  await sameDigests(from, to);
  assert.equal(await to.store.cardinality('s' as never), 100_000);
  assert.ok(full.longest < 512 * 1024, 'the set comes in pages');
  for (let i = 0; i < 4; i += 1) await from.submit(add('s', `new ${i}`));
  for (let i = 0; i < 3; i += 1) await from.submit(remove('s', `member ${i * 20_011}`));
  for (let i = 0; i < 3; i += 1) await from.submit(add('s', `member ${i * 30_011 + 7}`));
  const some = await transfer(from, to);
  assert.equal(some.error, null);
  assert.equal(some.requests, 3);
  assert.ok(some.bytes <= full.bytes / 100, `${some.bytes} of ${full.bytes} bytes`);
  await sameDigests(from, to);
  assert.deepEqual(
    ((await to.store.members('s' as never)) as string[]).sort(),
    ((await from.store.members('s' as never)) as string[]).sort(),
  );
});

/** Lets a transfer take whatever the asker may have missed. */
const completing = (to: ReplicaWorld): TransferOptions => ({
  since: (marks) => missingSince(marks, to.replica.applied),
});

test('a complete transfer that broke off goes on where it stopped, and raises the marks only at its end', async () => {
  const from = await replicaWorld({ id: 'from.1' });
  const to = await replicaWorld({ id: 'to.1' });
  await fill(from, 20_000, (i) => `value ${i} ${'v'.repeat(200)}`);
  // What is deleted counts too, though it has no digest.
  for (let i = 0; i < 20_000; i += 200) await from.submit(on(`key:${i}`, (tx, key) => tx.delete(key)));
  const other = await replicaWorld({ id: 'other.1' });
  const whole = await transfer(from, other, completing(other));
  assert.equal(whole.outcome?.keys, 20_000);
  const halves: number[] = [];
  for (let tries = 0; tries < 20; tries += 1) {
    const part = await transfer(from, to, { ...completing(to), cutAfter: whole.bytes / 3 });
    halves.push(part.bytes);
    if (part.error === null) break;
    assert.equal(part.error.code, 'PEER');
    assert.equal(to.replica.applied.size, 0, 'half a transfer raises no marks');
    await to.settle();
  }
  assert.equal(to.replica.applied.get('from.1')?.number, from.replica.applied.get('from.1')?.number);
  await sameDigests(from, to);
  const total = halves.reduce((sum, bytes) => sum + bytes, 0);
  assert.ok(halves.length > 2, 'it was cut');
  assert.ok(total < 1.3 * whole.bytes, `${halves.join(' + ')} bytes for ${whole.bytes}`);
});

test('members that know the same of a key hold the same header, however they came to know it', async () => {
  const ids = ['a.1', 'b.1', 'c.1'];
  const worlds = await Promise.all(
    ids.map((id) => replicaWorld({ id, ruleOptions: [{ pattern: 'max*', type: 'string', policy: 'max' }] })),
  );
  const [a, b, c] = worlds as [ReplicaWorld, ReplicaWorld, ReplicaWorld];
  for (const [turn, world] of worlds.entries()) {
    await world.submit(set('text', `text ${turn}`));
    await world.submit(set('max', `${turn}`));
    await world.submit(set('gone', 'x'));
    await world.submit(increment('n', BigInt(turn)));
    await world.submit(add('s', 'both', `only ${turn}`));
    await world.submit(add('text', 'a set by another name'));
    await world.submit(on('timed', (tx, key) => tx.set(key, key, 'clear')));
    await world.submit(on('timed', (tx, key) => tx.expire(key, 2_000_000_000_000 + turn)));
  }
  const merged = (world: ReplicaWorld, frames: Frame[]) =>
    new Promise<void>((done) => world.replica.merge({ frames, states: [], marks: [], done: () => done() }));
  const framesOf = (world: ReplicaWorld) => world.frames.map(({ bytes }) => decodeFrame(bytes, 1 << 20));
  await merged(a, framesOf(b));
  await a.submit(on('gone', (tx, key) => tx.delete(key)));
  await a.submit(on('n', (tx, key) => tx.delete(key)));
  await a.submit(remove('s', 'both'));
  await merged(b, [...framesOf(c), ...framesOf(a)]);
  await merged(a, framesOf(c));
  // One that has it all by transfers, and not in one go.
  const d = await replicaWorld({ id: 'd.1' });
  for (const from of [c, b, a]) assert.equal((await transfer(from, d, completing(d))).error, null);
  const slots = Array.from({ length: 16384 }, (_, slot) => slot);
  const headers = await Promise.all([a, b, d].map(({ store }) => store.headers(slots, 1 << 30)));
  assert.ok(headers[0]!.flat().length >= 6);
  assert.deepEqual(headers[1], headers[0]);
  assert.deepEqual(headers[2], headers[0]);
});

test('a frame that adds, during a transfer, what another one has removed for the giver, is not taken for the truth', async () => {
  const [from, to, third] = [
    await replicaWorld({ id: 'from.1' }),
    await replicaWorld({ id: 'to.1' }),
    await replicaWorld({ id: 'third.1' }),
  ];
  const decoded = () => third.frames.map(({ bytes }) => decodeFrame(bytes, 1 << 20));
  await third.submit(add('s', 'gone'));
  await third.submit(remove('s', 'gone'));
  await new Promise<void>((done) =>
    from.replica.merge({ frames: decoded(), states: [], marks: [], done: () => done() }),
  );
  await from.submit(set('other', 'differs'));
  const touched = new TouchedKeys();
  let late = decoded().slice(0, 1);
  const { error } = await transfer(from, to, {
    touched,
    // The digests have been compared; only now comes the first of the two frames. The second is covered by the marks.
    meanwhile: (message) => {
      if (message < 3 || late.length === 0) return;
      touched.note(late);
      to.replica.merge({ frames: late, states: [], marks: [] });
      late = [];
    },
  });
  assert.equal(error, null);
  assert.equal(to.replica.applied.get('third.1')?.number, 2);
  assert.equal(await to.store.cardinality('s' as never), 0);
});

test('members that are refreshed while their set is paged are never gone, and none is lost', async () => {
  const from = await replicaWorld({ id: 'from.1' });
  const to = await replicaWorld({ id: 'to.1' });
  const names = Array.from({ length: 400 }, (_, i) => `member ${i}`);
  await from.submit(add('s', ...names));
  assert.equal((await transfer(from, to)).error, null);
  for (const some of [names.slice(0, 20), names]) {
    await from.submit(add('s', ...some, 'new'));
    let turns = 0;
    const { error } = await transfer(from, to, {
      bigSetMembers: 16,
      meanwhile: async () => {
        turns += 1;
        await from.submit(add('s', some[turns % some.length]!));
        assert.ok(((await to.store.cardinality('s' as never)) as number) >= 400);
      },
    });
    assert.equal(error, null);
    assert.ok(turns > 3);
    assert.equal(await to.store.cardinality('s' as never), 401);
  }
  assert.equal((await transfer(from, to)).error, null);
  await sameDigests(from, to);
});
