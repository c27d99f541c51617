/**
 * The table of conflicts (SEMANTICS.md) on three real peers with three real Valkeys, through real clients. "Cut off" means
 * that the TCP links are cut; "later" means a later millisecond on the machine's clock.
 *
 * Not here, because no client can bring it about: row 3 (equal stamps) is in crdts-table.test.ts, row 10 (a clock an hour ahead)
 * in sync.test.ts and row 29 (an evicted tombstone) in document-tombstone.test.ts. EXPLAIN of rows 16 and 25, and RENAME, COPY and SMOVE
 * of row 30, are commands that this front door does not have yet.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Redis } from 'ioredis';
import { type ByteString, utf8 } from '../crdts/bytes.js';
import { entriesKey, slotHashKey } from '../src/store/layout.js';
import { keySlot } from '../src/store/slots.js';
import { connectTo, laterMoment, type Region, Regions } from './support/regions.js';
import { waitFor } from './support/wait.js';

let regions: Regions;
let a: Region;
let b: Region;
let c: Region;

before(async () => {
  const rules = ['r8*=string:fww', 'r9*=string:max'];
  regions = await Regions.start({ flags: rules.flatMap((rule) => ['--rule', rule]) });
  [a, b, c] = regions.all as [Region, Region, Region];
});
after(() => regions?.stop());

/** Checks a read in every region, through its door and straight in its Valkey. */
async function everywhere(read: (client: Redis) => Promise<unknown>, expected: unknown): Promise<void> {
  for (const { name, door, native } of regions.all) {
    assert.deepEqual(await read(door), expected, `through the door of ${name}`);
    assert.deepEqual(await read(native), expected, `in the Valkey of ${name}`);
  }
}

const text = (key: string) => (client: Redis) => client.get(key);
const members = (key: string) => async (client: Redis) => (await client.smembers(key)).sort();
const exists = (key: string) => (client: Redis) => client.exists(key);

/** Runs what regions do while they don't see each other, and lets them see it all. */
async function cutOff(...steps: readonly (() => Promise<unknown>)[]): Promise<void> {
  for (const region of regions.all) regions.cut(region);
  try {
    for (const step of steps) await step();
  } finally {
    regions.heal();
  }
  await regions.synchronise();
}

describe('Registers', () => {
  it('row 1: of two concurrent SETs the later one is seen everywhere, and a SET after that too', async () => {
    await cutOff(
      () => a.door.set('r1', 'a'),
      laterMoment,
      () => b.door.set('r1', 'b'),
    );
    await everywhere(text('r1'), 'b');
    await a.door.set('r1', 'c');
    await regions.synchronise();
    await everywhere(text('r1'), 'c');
  });

  it('row 2: a region that is cut off reads its own value until it sees the later one', async () => {
    await a.door.set('r2', 'c');
    await regions.synchronise();
    await cutOff(laterMoment, async () => {
      await b.door.set('r2', 'd');
      assert.equal(await b.door.get('r2'), 'd');
      assert.equal(await a.door.get('r2'), 'c');
      assert.equal(await a.native.get('r2'), 'c');
    });
    await everywhere(text('r2'), 'd');
  });

  it('row 4: of a concurrent SET and DEL the later one wins, whichever it is', async () => {
    await a.door.mset('r4 set last', '0', 'r4 del last', '0');
    await regions.synchronise();
    await cutOff(
      laterMoment,
      () => Promise.all([a.door.del('r4 set last'), b.door.set('r4 del last', '1')]),
      laterMoment,
      () => Promise.all([b.door.set('r4 set last', '1'), a.door.del('r4 del last')]),
    );
    await everywhere(text('r4 set last'), '1');
    await everywhere(exists('r4 del last'), 0);
  });

  it('row 5: of three SETs on both sides of a cut the last one wins', async () => {
    await cutOff(
      () => b.door.set('r5', 'b2'),
      laterMoment,
      () => b.door.set('r5', 'b1'),
      laterMoment,
      () => a.door.set('r5', 'b3'),
    );
    await everywhere(text('r5'), 'b3');
  });

  it('row 6: two SETs at the same moment end equal, 1,000 times', async () => {
    const ROUNDS = 10;
    const keys = Array.from({ length: 100 }, (_, at) => `r6 ${at}`);
    const write = (region: Region, value: string): Promise<unknown> => {
      const pipeline = region.door.pipeline();
      for (const key of keys) pipeline.set(key, value);
      return pipeline.exec();
    };
    for (let round = 0; round < ROUNDS; round += 1) {
      await Promise.all([write(a, `x${round}`), write(b, `y${round}`)]);
      await regions.synchronise();
      const seen = await a.native.mget(keys);
      assert(seen.every((value) => value === `x${round}` || value === `y${round}`));
      await everywhere((client) => client.mget(keys), seen);
    }
  });

  it('row 7: a key that is deleted while a region is down is gone there too, and stays gone', async () => {
    await a.door.set('r7', 'v');
    await a.door.sadd('r7 set', 'm');
    await regions.synchronise();
    await b.kill('SIGTERM');
    await a.door.del('r7', 'r7 set');
    await b.start();
    await regions.synchronise();
    await everywhere(exists('r7'), 0);
    await Promise.all([a.restart('SIGTERM'), b.restart('SIGKILL')]);
    await regions.synchronise();
    await everywhere(exists('r7'), 0);
    await everywhere(exists('r7 set'), 0);
  });
});

describe('Registers with a policy', () => {
  it('row 8: under fww the earliest of two concurrent SETs stays, and a SET after that is refused until a DEL', async () => {
    await cutOff(
      () => a.door.set('r8', 'first'),
      laterMoment,
      () => b.door.set('r8', 'second'),
    );
    await everywhere(text('r8'), 'first');
    assert.equal(await b.door.set('r8', 'third'), null);
    await regions.synchronise();
    await everywhere(text('r8'), 'first');
    await c.door.del('r8');
    await regions.synchronise();
    assert.equal(await b.door.set('r8', 'fourth'), 'OK');
    await regions.synchronise();
    await everywhere(text('r8'), 'fourth');
  });

  it('row 9: under max the greatest of two concurrent SETs stays, until someone who saw it writes less', async () => {
    await cutOff(
      () => a.door.set('r9', '7'),
      laterMoment,
      () => b.door.set('r9', '5'),
    );
    await everywhere(text('r9'), '7');
    await b.door.set('r9', '3');
    await regions.synchronise();
    await everywhere(text('r9'), '3');
  });
});

describe('Counters', () => {
  it('row 11: increments of both regions are seen locally at once, and all together afterwards', async () => {
    await cutOff(async () => {
      assert.equal(await a.door.incrby('r11', 7), 7);
      assert.equal(await b.door.incrby('r11', 3), 3);
    });
    await everywhere(text('r11'), '10');
    await cutOff(
      () => a.door.decrby('r11', 3),
      () => b.door.incrby('r11', 6),
    );
    await everywhere(text('r11'), '13');
  });

  it('row 12: 10,000 INCRs in each of three regions count once each, though one is killed in the middle', async (t) => {
    const TIMES = 10_000;
    const tally = new Map(regions.all.map(({ name }) => [name, { acknowledged: 0, unknown: 0 }]));
    /** Increments until `TIMES` are acknowledged, or the peer is gone. */
    const count = async (region: Region): Promise<void> => {
      const client = region.connect();
      const mine = tally.get(region.name)!;
      while (mine.acknowledged < TIMES && client.status !== 'end') {
        const pipeline = client.pipeline();
        const size = Math.min(200, TIMES - mine.acknowledged);
        for (let i = 0; i < size; i += 1) pipeline.incr('r12');
        const replies = (await pipeline.exec().catch(() => null)) ?? [];
        const done = replies.filter(([error]) => error === null).length;
        mine.acknowledged += done;
        mine.unknown += size - done;
      }
    };
    const killed = (async () => {
      const counting = count(c);
      await waitFor(() => tally.get(c.name)!.acknowledged >= TIMES / 3, { deadlineMs: 60_000 });
      await c.kill('SIGKILL');
      await counting;
      assert(tally.get(c.name)!.acknowledged < TIMES, 'it was killed in the middle');
      await c.start();
      await count(c);
    })();
    await Promise.all([count(a), count(b), killed]);
    await regions.synchronise();
    const { unknown } = tally.get(c.name)!;
    const value = Number(await a.native.get('r12'));
    t.diagnostic(`${value} counted, 30,000 acknowledged, ${unknown} of unknown outcome`);
    for (const { name, acknowledged } of regions.all.map(({ name }) => ({ name, ...tally.get(name)! })))
      assert.equal(acknowledged, TIMES, name);
    assert.equal(tally.get(a.name)!.unknown + tally.get(b.name)!.unknown, 0);
    assert(value >= 3 * TIMES && value <= 3 * TIMES + unknown, String(value));
    await everywhere(text('r12'), String(value));
  });

  it('row 13: an increment survives a concurrent SET that did not see it', async () => {
    await a.door.set('r13', '100');
    await regions.synchronise();
    await cutOff(
      () => a.door.incrby('r13', 5),
      laterMoment,
      () => b.door.set('r13', '10'),
    );
    await everywhere(text('r13'), '15');
  });

  it('row 14: an increment beside a DEL starts from nothing, and so does one after it', async () => {
    await a.door.mset('r14 beside', '10', 'r14 after', '10');
    await regions.synchronise();
    await cutOff(
      () => a.door.incr('r14 beside'),
      () => b.door.del('r14 beside'),
      () => a.door.del('r14 after'),
    );
    await everywhere(text('r14 beside'), '1');
    assert.equal(await b.door.incr('r14 after'), 1);
    await regions.synchronise();
    await everywhere(text('r14 after'), '1');
  });

  it('row 15: fractions of several regions add up to the same bytes everywhere', async () => {
    await cutOff(
      () => a.door.incrbyfloat('r15', 1.1),
      () => b.door.incrbyfloat('r15', 1.9),
    );
    await everywhere(text('r15'), '3');
    await c.door.incrby('r15', 2);
    await regions.synchronise();
    await everywhere(text('r15'), '5');
    await cutOff(
      ...[a, b, c].map(
        ({ door }) =>
          () =>
            door.incrbyfloat('r15', 0.1),
      ),
    );
    await everywhere(text('r15'), '5.3');
  });

  it('row 16: an increment is not applied to a text that was set concurrently', async () => {
    await cutOff(
      () => a.door.incr('r16'),
      laterMoment,
      () => b.door.set('r16', 'abc'),
    );
    await everywhere(text('r16'), 'abc');
    await assert.rejects(a.door.incr('r16'), /^ReplyError: ERR value is not an integer or out of range/);
  });

  it('row 17: an overflow is Valkey’s error, and changes nothing', async () => {
    await a.door.set('r17', '9223372036854775807');
    await assert.rejects(a.door.incr('r17'), /^ReplyError: ERR increment or decrement would overflow/);
    await regions.synchronise();
    await everywhere(text('r17'), '9223372036854775807');
  });
});

describe('Sets', () => {
  it('row 18: concurrent adds are all there', async () => {
    await cutOff(
      () => a.door.sadd('r18', 'a'),
      () => b.door.sadd('r18', 'b'),
    );
    await everywhere(members('r18'), ['a', 'b']);
  });

  it('row 19: a removal takes away only what its region has seen', async () => {
    await a.door.sadd('r19', 'a', 'b');
    await regions.synchronise();
    await cutOff(
      () => a.door.srem('r19', 'a'),
      () => b.door.sadd('r19', 'c'),
      async () => assert.equal(await a.door.srem('r19', 'c'), 0),
    );
    await everywhere(members('r19'), ['b', 'c']);
  });

  it('row 20: what was added beside a DEL stays', async () => {
    await a.door.sadd('r20', 'e1');
    await regions.synchronise();
    await cutOff(
      () => a.door.sadd('r20', 'e2'),
      () => b.door.del('r20'),
    );
    await everywhere(members('r20'), ['e2']);
  });

  it('row 21: adding a member that is there already wins over its concurrent removal', async () => {
    await a.door.sadd('r21', 'e');
    await regions.synchronise();
    await cutOff(
      async () => assert.equal(await a.door.sadd('r21', 'e'), 0),
      async () => assert.equal(await b.door.srem('r21', 'e'), 1),
    );
    await everywhere(members('r21'), ['e']);
  });

  it('row 22: a member that was removed and added again is there', async () => {
    await a.door.sadd('r22', 'e');
    await regions.synchronise();
    assert.equal(await a.door.srem('r22', 'e'), 1);
    await regions.synchronise();
    await everywhere(exists('r22'), 0);
    assert.equal(await b.door.srem('r22', 'e'), 0);
    await regions.synchronise();
    assert.equal(await a.door.sadd('r22', 'e'), 1);
    await regions.synchronise();
    await everywhere(members('r22'), ['e']);
  });

  it('row 23: a member that two regions pop concurrently is given to both, and is gone on both', async () => {
    await a.door.sadd('r23', 'e');
    await regions.synchronise();
    await cutOff(async () => {
      assert.equal(await a.door.spop('r23'), 'e');
      assert.equal(await b.door.spop('r23'), 'e');
    });
    await everywhere(exists('r23'), 0);
  });

  // A million times, without the door: crdts-churn.test.ts.
  it('row 24: adding and removing one member 5,000 times leaves only a little metadata', async () => {
    for (let done = 0; done < 5_000; done += 500) {
      const pipeline = (done % 1_000 === 0 ? a : b).door.pipeline();
      for (let i = 0; i < 500; i += 1) pipeline.sadd('r24', 'm').srem('r24', 'm');
      await pipeline.exec();
    }
    await a.door.sadd('r24', 'last');
    await regions.synchronise();
    await everywhere(members('r24'), ['last']);
    const key = utf8('r24');
    const raw = (name: ByteString): Buffer => Buffer.from(name, 'latin1');
    for (const { name, native } of regions.all) {
      const header = await native.hstrlen(raw(slotHashKey(keySlot(key))), 'r24');
      assert(header > 0 && header < 300, `${header} bytes of header in ${name}`);
      assert.deepEqual(await native.hkeys(raw(entriesKey(key))), ['last'], name);
    }
  });
});

describe('Keys', () => {
  it('row 25: of two concurrent types the same one is seen everywhere, and DEL clears both', async () => {
    await cutOff(
      () => a.door.set('r25', 'v'),
      laterMoment,
      () => b.door.sadd('r25', 'm'),
    );
    await everywhere((client) => client.type('r25'), 'set');
    await everywhere(members('r25'), ['m']);
    await assert.rejects(a.door.get('r25'), /WRONGTYPE/);
    await a.door.del('r25');
    await regions.synchronise();
    await everywhere((client) => client.type('r25'), 'none');
    await b.door.append('r25', 'x');
    await regions.synchronise();
    await everywhere(text('r25'), 'x');
  });

  it('row 26: of concurrent deadlines the longest stays, and none beats all; alone, the last one counts', async () => {
    await a.door.mset('r26 longest', 'v', 'r26 none', 'v', 'r26 alone', 'v');
    await a.door.expire('r26 none', 20);
    await regions.synchronise();
    await cutOff(
      () => a.door.expire('r26 longest', 50),
      laterMoment,
      () => b.door.expire('r26 longest', 10),
      () => a.door.persist('r26 none'),
      laterMoment,
      () => b.door.expire('r26 none', 30),
      () => a.door.expire('r26 alone', 50),
      () => a.door.expire('r26 alone', 10),
    );
    const deadline = (key: string) => (client: Redis) => client.call('PEXPIRETIME', key);
    const longest = Number(await a.native.call('PEXPIRETIME', 'r26 longest'));
    assert(longest > Date.now() + 30_000, 'the 50 seconds stay');
    await everywhere(deadline('r26 longest'), longest);
    await everywhere(deadline('r26 none'), -1);
    const alone = Number(await a.native.call('PEXPIRETIME', 'r26 alone'));
    assert(alone <= Date.now() + 10_000, 'the 10 seconds count');
    await everywhere(deadline('r26 alone'), alone);
  });

  it('row 27: an expired key is gone in every region, and what comes after it starts anew', async () => {
    await a.door.set('r27 count', '41', 'PX', 300);
    await a.door.sadd('r27 set', 'old');
    await a.door.pexpire('r27 set', 300);
    await regions.synchronise();
    await waitFor(async () => (await a.door.exists('r27 count', 'r27 set')) === 0, { what: 'both expire' });
    for (const region of regions.all)
      await waitFor(async () => (await region.door.exists('r27 count', 'r27 set')) === 0, {
        what: region.name,
      });
    assert.equal(await b.door.incr('r27 count'), 1);
    assert.equal(await c.door.sadd('r27 set', 'new'), 1);
    await regions.synchronise();
    await everywhere(text('r27 count'), '1');
    await everywhere(members('r27 set'), ['new']);
    await everywhere((client) => client.ttl('r27 set'), -1);
  });

  it('row 28: SET clears the deadline in every region, and KEEPTTL keeps it', async () => {
    await a.door.set('r28 cleared', 'v', 'EX', 100);
    await a.door.set('r28 kept', 'v', 'EX', 100);
    await regions.synchronise();
    await b.door.set('r28 cleared', 'w');
    await b.door.set('r28 kept', 'w', 'KEEPTTL');
    await regions.synchronise();
    await everywhere((client) => client.ttl('r28 cleared'), -1);
    for (const { door, native } of regions.all) {
      for (const client of [door, native]) {
        assert.equal(await client.get('r28 kept'), 'w');
        assert((await client.ttl('r28 kept')) > 0);
      }
    }
  });

  it('row 30: no region ever shows half of a MULTI…EXEC or an MSET', async () => {
    const keys = Array.from({ length: 8 }, (_, at) => `r30 ${at}`);
    let over = false;
    let looks = 0;
    const halves: unknown[] = [];
    const look = async (client: Redis): Promise<void> => {
      while (!over) {
        const [values, set] = (await client.multi().mget(keys).smembers('r30 set').exec())!.map(
          ([, it]) => it,
        ) as [(string | null)[], string[]];
        looks += 1;
        if (new Set(values).size !== 1 || set.join() !== (values[0] ?? '')) halves.push(values, set);
      }
    };
    const looking = [b, c].map(({ native }) => look(native));
    try {
      for (let i = 0; i < 150; i += 1) {
        const values = Object.fromEntries(keys.map((key) => [key, String(i)]));
        const batch = a.door
          .multi()
          .srem('r30 set', String(i - 1))
          .sadd('r30 set', String(i));
        if (i % 2 === 0) batch.mset(values);
        else for (const key of keys) batch.set(key, String(i));
        await batch.exec();
      }
      await regions.synchronise();
    } finally {
      over = true;
      await Promise.all(looking);
    }
    assert.deepEqual(halves, []);
    assert(looks > 50, `looked ${looks} times`);
    await everywhere(
      (client) => client.mget(keys),
      keys.map(() => '149'),
    );
  });
});

describe('A write in one region', () => {
  it('is there natively in the Valkeys of the others, for plain clients', async () => {
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, at) => at));
    await a.door.set('native text', bytes);
    await a.door.set('native for a while', 'v', 'EX', 1000);
    await b.door.incrby('native count', 42);
    await c.door.sadd('native set', 'x', bytes);
    await regions.synchronise();
    for (const { valkey } of regions.all) {
      // A client that knows nothing of this program, on the port of the Valkey itself.
      const plain = connectTo(valkey.port);
      assert.deepEqual(await plain.getBuffer('native text'), bytes);
      assert.equal(await plain.get('native count'), '42');
      assert.equal(await plain.object('ENCODING', 'native count'), 'int');
      assert.deepEqual((await plain.smembersBuffer('native set')).sort(Buffer.compare), [
        bytes,
        Buffer.from('x'),
      ]);
      assert(Math.abs((await plain.ttl('native for a while')) - 1000) < 60);
      plain.disconnect();
    }
  });

  it('is seen by a WAIT for two regions', async () => {
    const client = a.connect();
    await client.set('waited', 'for');
    assert.equal(await client.wait(2, 30_000), 2);
    assert.deepEqual(await Promise.all([b, c].map(({ native }) => native.get('waited'))), ['for', 'for']);
  });

  it('is nowhere else while its region is cut off, and WAIT says so', async () => {
    const client = a.connect();
    regions.cut(a);
    try {
      await client.set('alone', 'yes');
      assert.equal(await client.wait(1, 50), 0);
      assert.equal(await b.native.exists('alone'), 0);
    } finally {
      regions.heal();
    }
    assert.equal(await client.wait(2, 30_000), 2);
  });

  it('goes the long way round when two regions don’t reach each other', async () => {
    regions.cut(a, b);
    try {
      await a.door.set('round', 'about');
      await waitFor(async () => (await b.native.get('round')) === 'about', {
        deadlineMs: 60_000,
        what: 'it comes through the third region',
      });
    } finally {
      regions.heal();
    }
    await regions.synchronise();
  });
});
