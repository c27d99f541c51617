/** The RESP front door on a fake engine: the compliance suite, and what only a fake's levers can show. */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe, it } from 'node:test';
import { Redis } from 'ioredis';
import { StoreRefusedError, StoreUnavailableError } from '../src/errors.js';
import { type Logger, silentLogger } from '../src/options.js';
import { type FrontDoor, type FrontDoorOptions, startFrontDoor } from '../src/resp/front-door.js';
import { FakeEngine } from './support/fake-engine.js';
import { encode, RawClient } from './support/resp-client.js';
import { respCompliance } from './support/resp-compliance.js';

respCompliance('fake engine', async () => ({ engine: new FakeEngine(), stop: async () => {} }));

const DEADLINE_MS = 20_000;

/** Waits until a condition holds, one turn of the event loop at a time. */
async function until(condition: () => boolean, what: string): Promise<void> {
  const end = Date.now() + DEADLINE_MS;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`waited in vain until ${what}`);
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}

async function withDoor(
  options: Partial<FrontDoorOptions>,
  run: (door: FrontDoor, engine: FakeEngine, client: RawClient) => Promise<void>,
  engine = new FakeEngine(),
): Promise<void> {
  const door = await startFrontDoor({ engine, port: 0, logger: silentLogger, ...options });
  const client = await RawClient.connect(door.port);
  try {
    await run(door, engine, client);
  } finally {
    client.close();
    engine.release();
    await door.stop();
  }
}

describe('order', () => {
  it('commits pipelined writes together', () =>
    withDoor({}, async (_door, engine, client) => {
      engine.hold();
      client.write(Buffer.concat(Array.from({ length: 1000 }, (_, i) => encode('SET', `k${i}`, 'v'))));
      await until(() => engine.waiting.operations === 1000, 'all wait for a commit');
      engine.release();
      await client.replies(1000);
      assert.deepEqual(engine.commits, [1000]);
    }));

  it('commits pipelined transactions together', () =>
    withDoor({}, async (_door, engine, client) => {
      engine.hold();
      const one = [encode('MULTI'), encode('INCR', 'a'), encode('INCR', 'b'), encode('EXEC')];
      client.write(Buffer.concat(Array.from({ length: 50 }, () => one).flat()));
      await until(() => engine.waiting.operations === 50, 'all wait for a commit');
      engine.release();
      const replies = await client.replies(200);
      assert.equal(replies[199], '*2\r\n:50\r\n:50\r\n');
    }));

  it('asks the store once for the GETs of one turn, whichever connection they came from', () =>
    withDoor({}, async (_door, engine, client) => {
      client.write(Buffer.concat(Array.from({ length: 20 }, (_, i) => encode('GET', `k${i}`))));
      await client.replies(20);
      assert.equal(engine.stringQuestions, 1);
    }));

  it('does not start a read before the writes before it are committed', () =>
    withDoor({}, async (_door, engine, client) => {
      engine.hold();
      client.write(Buffer.concat([encode('SET', 'k', '1'), encode('GET', 'k')]));
      await until(() => engine.waiting.operations === 1, 'the write waits');
      assert.equal(engine.waiting.reads, 0);
      engine.release();
      assert.deepEqual(await client.replies(2), ['+OK\r\n', '$1\r\n1\r\n']);
    }));

  it('does not start a write before the reads before it are answered', () =>
    withDoor({}, async (_door, engine, client) => {
      await client.call('SET', 'k', '1');
      engine.hold();
      client.write(Buffer.concat([encode('GET', 'k'), encode('STRLEN', 'k'), encode('SET', 'k', '22')]));
      await until(() => engine.waiting.reads === 2, 'both reads wait');
      assert.equal(engine.waiting.operations, 0);
      engine.release();
      assert.deepEqual(await client.replies(3), ['$1\r\n1\r\n', ':1\r\n', '+OK\r\n']);
    }));

  it('answers a PING behind a write in its turn', () =>
    withDoor({}, async (_door, engine, client) => {
      engine.hold();
      client.write(Buffer.concat([encode('SET', 'k', '1'), encode('PING'), encode('SET', 'k', '2')]));
      await until(() => engine.waiting.operations === 2, 'both writes wait');
      engine.release();
      assert.deepEqual(await client.replies(3), ['+OK\r\n', '+PONG\r\n', '+OK\r\n']);
    }));

  it('lets no client queue more than the bound, and takes the rest later', () =>
    withDoor({ limits: { maxPending: 100 } }, async (_door, engine, client) => {
      engine.hold();
      client.write(Buffer.concat(Array.from({ length: 1000 }, () => encode('INCR', 'k'))));
      await until(() => engine.waiting.operations === 100, 'the bound is reached');
      engine.release();
      assert.equal((await client.replies(1000))[999], ':1000\r\n');
      assert.ok(engine.mostQueued <= 100, `at most 100 wait, not ${engine.mostQueued}`);
    }));

  it('lets all clients together queue less than what a node refuses', () =>
    withDoor({}, async (door, engine, first) => {
      const clients = [first, ...(await Promise.all([1, 2, 3, 4].map(() => RawClient.connect(door.port))))];
      engine.hold();
      const many = Buffer.concat(Array.from({ length: 15_000 }, () => encode('INCR', 'k')));
      for (const client of clients) client.write(many);
      await until(() => engine.waiting.operations === 50_000, 'the bound is reached');
      engine.release();
      for (const client of clients) await client.replies(15_000);
      assert.equal(engine.mostQueued, 50_000);
      assert.equal(await first.call('GET', 'k'), '$5\r\n75000\r\n');
      for (const client of clients) client.close();
    }));

  it('keeps silent as CLIENT REPLY says, and in place', () =>
    withDoor({}, async (_door, _engine, client) => {
      const commands = [
        ['CLIENT', 'REPLY', 'SKIP'],
        ['SET', 'k', '1'],
        ['GET', 'k'],
        ['CLIENT', 'REPLY', 'OFF'],
        ['INCR', 'k'],
        ['nonsense'],
        ['CLIENT', 'REPLY', 'ON'],
        ['GET', 'k'],
      ];
      client.write(Buffer.concat(commands.map((args) => encode(...args))));
      assert.deepEqual(await client.replies(3), ['$1\r\n1\r\n', '+OK\r\n', '$1\r\n2\r\n']);
    }));
});

describe('clients that come and go', () => {
  it('starts no more commands for a client that reads no replies, until it does', () =>
    withDoor({ limits: { maxUnsentBytes: 64 * 1024 } }, async (door, engine) => {
      const slow = await RawClient.connect(door.port);
      await slow.call('SET', 'big', 'x'.repeat(100_000));
      slow.socket.pause();
      const count = 2000;
      slow.write(Buffer.concat(Array.from({ length: count }, () => encode('GET', 'big'))));
      let asked = -1;
      // The kernel takes a few megabytes; then nothing moves.
      while (asked !== engine.stringQuestions) {
        asked = engine.stringQuestions;
        for (let turn = 0; turn < 2000; turn += 1)
          await new Promise<void>((resolve) => setImmediate(resolve));
      }
      const other = await RawClient.connect(door.port);
      const line = (await other.call('CLIENT', 'LIST')).split('\n').find((each) => / omem=[1-9]/.test(each));
      assert.ok(line !== undefined, 'replies wait for the client');
      const unsent = Number(/ omem=(\d+)/.exec(line)?.[1]);
      assert.ok(unsent < 1024 * 1024, `${unsent} bytes wait for a client that reads nothing`);
      slow.socket.resume();
      const reply = `$100000\r\n${'x'.repeat(100_000)}\r\n`;
      for (let i = 0; i < count; i += 1) assert.ok((await slow.reply()) === reply);
      other.close();
      slow.close();
    }));

  it('disconnects a client that never reads its replies', () =>
    withDoor({ limits: { maxUnsentBytes: 64 * 1024, stallMs: 200 } }, async (door, _engine) => {
      const slow = await RawClient.connect(door.port);
      await slow.call('SET', 'big', 'x'.repeat(1_000_000));
      slow.socket.pause();
      slow.write(Buffer.concat(Array.from({ length: 100 }, () => encode('GET', 'big'))));
      await until(() => door.clients === 1, 'it is gone');
      slow.close();
    }));

  it('finishes what a client had sent when it disconnects in the middle', () =>
    withDoor({}, async (door, engine, other) => {
      const client = await RawClient.connect(door.port);
      engine.hold();
      client.write(Buffer.concat(Array.from({ length: 500 }, () => encode('INCR', 'k'))));
      await until(() => engine.waiting.operations === 500, 'all wait');
      client.socket.resetAndDestroy();
      await until(() => door.clients === 1, 'it is gone');
      engine.release();
      await until(() => engine.waiting.operations === 0, 'all are committed');
      assert.equal(await other.call('GET', 'k'), '$3\r\n500\r\n');
    }));

  it('answers everything to a client that has closed its sending side', () =>
    withDoor({}, async (_door, _engine, client) => {
      const commands = [encode('SET', 'k', 'v'), encode('GET', 'k'), encode('INCR', 'n'), encode('GET', 'n')];
      client.socket.end(Buffer.concat(commands));
      assert.equal(await client.rest(), '+OK\r\n$1\r\nv\r\n:1\r\n$1\r\n1\r\n');
    }));

  it('runs nothing that follows a QUIT', () =>
    withDoor({}, async (_door, engine, client) => {
      client.write(Buffer.concat([encode('SET', 'k', '1'), encode('QUIT'), encode('SET', 'k', '2')]));
      assert.equal(await client.rest(), '+OK\r\n+OK\r\n');
      assert.deepEqual(
        [...engine.entries.values()].map(({ value }) => value),
        ['1'],
      );
    }));

  it('keeps a connection whose command fails unexpectedly', async () => {
    const errors: string[] = [];
    const logger: Logger = { ...silentLogger, error: (_fields, message) => errors.push(message) };
    const entry = { arity: 1, flags: [], group: 'server', summary: '' } as const;
    const boom = (): never => {
      throw new TypeError('boom');
    };
    const extra: FrontDoorOptions['extra'] = [
      { ...entry, name: 'boom1', kind: 'local', run: boom },
      { ...entry, name: 'boom2', kind: 'read', read: async () => boom() },
      { ...entry, name: 'boom3', kind: 'read', read: boom },
      { ...entry, name: 'boom4', kind: 'exclusive', run: boom },
      { ...entry, name: 'boom5', kind: 'write', plan: boom },
      { ...entry, name: 'boom6', kind: 'write', plan: () => ({ needs: [], run: boom, reply: () => {} }) },
      { ...entry, name: 'boom7', kind: 'write', plan: () => ({ needs: [], run: () => 1, reply: boom }) },
    ];
    await withDoor({ extra, logger }, async (_door, _engine, client) => {
      for (let i = 1; i <= 7; i += 1) {
        assert.equal(await client.call(`boom${i}`), '-ERR internal error\r\n', `boom${i}`);
      }
      assert.equal(await client.call('PING'), '+PONG\r\n');
      assert.equal(errors.length, 7);
    });
  });

  it('tells a client too many that it is one', () =>
    withDoor({ maxClients: 1 }, async (door, _engine, client) => {
      const second = await RawClient.connect(door.port);
      assert.equal(await second.rest(), '-ERR max number of clients reached\r\n');
      assert.equal(await client.call('PING'), '+PONG\r\n');
    }));

  it('kills clients by id', () =>
    withDoor({}, async (door, _engine, client) => {
      const victim = await RawClient.connect(door.port);
      const id = (await victim.call('CLIENT', 'ID')).slice(1).trim();
      assert.equal(await client.call('CLIENT', 'KILL', 'ID', id), ':1\r\n');
      assert.equal(await victim.rest(), '');
    }));

  it('closes on an HTTP request that a browser was made to send', () =>
    withDoor({}, async (_door, _engine, client) => {
      client.write('POST / HTTP/1.1\r\nHost: x\r\n\r\nSET k v\r\n');
      assert.equal(await client.rest(), '');
    }));
});

describe('errors of the node', () => {
  it('says of a failed write that its outcome is unknown, with a prefix that no client retries', () =>
    withDoor({}, async (_door, engine, client) => {
      engine.commitError = new StoreUnavailableError('no answer from the store');
      assert.match(await client.call('INCR', 'k'), /^-STOREDOWN it is unknown whether .*: no answer/);
      engine.commitError = new StoreRefusedError("OOM command not allowed when used memory > 'maxmemory'.");
      assert.match(await client.call('INCR', 'k'), /^-OOM command not allowed/);
      engine.commitError = null;
      assert.equal(await client.call('INCR', 'k'), ':1\r\n');
    }));

  it('says of a failed read that it may be repeated', () =>
    withDoor({}, async (_door, engine, client) => {
      engine.readError = new StoreUnavailableError('no answer from the store');
      assert.equal(await client.call('GET', 'k'), '-MASTERDOWN no answer from the store\r\n');
      assert.equal(await client.call('SMEMBERS', 'k'), '-MASTERDOWN no answer from the store\r\n');
      assert.match(await client.call('INFO'), /# Keyspace/);
    }));

  it('tells of a full queue', () =>
    withDoor({}, async (_door, engine, client) => {
      engine.maxQueued = 0;
      assert.equal(await client.call('INCR', 'k'), '-ERR too many operations wait for a commit\r\n');
    }));

  it('never builds a string that is over the limit', () =>
    withDoor(
      {},
      async (_door, _engine, client) => {
        assert.equal(await client.call('APPEND', 'k', 'x'.repeat(60)), ':60\r\n');
        assert.match(
          await client.call('APPEND', 'k', 'x'.repeat(60)),
          /^-ERR string exceeds maximum allowed size/,
        );
        assert.equal(await client.call('STRLEN', 'k'), ':60\r\n');
      },
      new FakeEngine(100),
    ));
});

describe('waiting for other regions', () => {
  it('gives the number of regions that have applied the last write', () =>
    withDoor({}, async (_door, engine, client) => {
      await client.call('SET', 'k', 'v');
      assert.equal(await client.call('WAIT', '2', '1000'), ':2\r\n');
      engine.regionsApplied = 1;
      assert.equal(await client.call('WAIT', '2', '20'), ':1\r\n');
      assert.equal(await client.call('WAIT', '0', '0'), ':1\r\n');
    }));

  it('gives up when the door is closed', async () => {
    const engine = new FakeEngine();
    const door = await startFrontDoor({ engine, port: 0, logger: silentLogger });
    const client = await RawClient.connect(door.port);
    client.send('WAIT', '5', '0');
    client.send('PING');
    const other = await RawClient.connect(door.port);
    for (;;) if ((await other.call('CLIENT', 'LIST')).includes('cmd=wait')) break;
    await door.stop(10_000);
    assert.equal(await client.rest(), ':2\r\n');
    other.close();
  });
});

describe('passwords', () => {
  const password = 'geheim-ü';
  const bytes = Buffer.from(password).toString('latin1');

  it('lets nobody in without it, and keeps strangers to small requests', () =>
    withDoor({ password }, async (door, engine, client) => {
      assert.equal(await client.call('SET', 'k', 'v'), '-NOAUTH Authentication required.\r\n');
      assert.match(await client.call('HELLO', '3'), /^-NOAUTH HELLO must be called/);
      assert.match(await client.call('AUTH', 'wrong'), /^-WRONGPASS/);
      assert.match(await client.call('AUTH', 'other', bytes), /^-WRONGPASS/);
      assert.equal(await client.call('AUTH', bytes), '+OK\r\n');
      assert.equal(await client.call('SET', 'k', 'v'.repeat(20_000)), '+OK\r\n');
      assert.equal(await client.call('RESET'), '+RESET\r\n');
      assert.match(await client.call('GET', 'k'), /^-NOAUTH/);
      assert.match(await client.call('HELLO', '3', 'AUTH', 'default', bytes), /^%7/);
      const stranger = await RawClient.connect(door.port);
      stranger.write('*11\r\n');
      assert.equal(await stranger.rest(), '-ERR Protocol error: unauthenticated multibulk length\r\n');
      const another = await RawClient.connect(door.port);
      another.write('*2\r\n$4\r\nAUTH\r\n$16385\r\n');
      assert.equal(await another.rest(), '-ERR Protocol error: unauthenticated bulk length\r\n');
      assert.equal(engine.entries.size, 1);
    }));

  it('is understood by ioredis', () =>
    withDoor({ password }, async (door) => {
      const redis = new Redis(door.port, '127.0.0.1', { password });
      assert.equal(await redis.set('k', 'v'), 'OK');
      redis.disconnect();
    }));
});

describe('opening and closing', () => {
  it('says what to do when the port is in use', async () => {
    const blocker = createServer().listen(0, '127.0.0.1');
    await once(blocker, 'listening');
    const { port } = blocker.address() as { port: number };
    const opening = startFrontDoor({ engine: new FakeEngine(), port, logger: silentLogger });
    await assert.rejects(opening, {
      code: 'CONFIG',
      message: new RegExp(`port ${port} .*in use.*another port`),
    });
    blocker.close();
  });

  it('answers what is under way, then closes', async () => {
    const engine = new FakeEngine();
    const door = await startFrontDoor({ engine, port: 0, logger: silentLogger });
    const client = await RawClient.connect(door.port);
    engine.hold();
    client.write(Buffer.concat([encode('INCR', 'k'), encode('INCR', 'k')]));
    await until(() => engine.waiting.operations === 2, 'both wait');
    const stopped = door.stop(10_000);
    client.send('INCR', 'k');
    engine.release();
    assert.equal(await client.rest(), ':1\r\n:2\r\n');
    await stopped;
    await assert.rejects(RawClient.connect(door.port), { code: 'ECONNREFUSED' });
  });

  it('closes in time although something never ends', async () => {
    const engine = new FakeEngine();
    const door = await startFrontDoor({ engine, port: 0, logger: silentLogger });
    const client = await RawClient.connect(door.port);
    engine.hold();
    client.send('INCR', 'k');
    await until(() => engine.waiting.operations === 1, 'it waits');
    await door.stop(50);
    assert.equal(await client.rest(), '');
  });
});

describe('a node that loads', () => {
  const LOADING = /^-LOADING the fake is loading\r\n$/;
  const status = {
    ...{ peer: 'P', region: 'us', keys: 250, keysTotal: 1000, bytes: 4096 },
    ...{ keysPerSecond: 50, secondsLeft: 15, sinceMs: 1_000 },
  };

  it('answers LOADING to what needs data, and everything else as always', () =>
    withDoor({}, async (_door, engine, client) => {
      assert.equal(await client.call('SET', 'k', 'v'), '+OK\r\n');
      engine.loading = status;
      for (const command of [
        'GET k',
        'SET k w',
        'INCR n',
        'SADD s m',
        'DEL k',
        'SCAN 0',
        'DBSIZE',
        'TYPE k',
        'PING',
      ])
        assert.match(await client.call(...command.split(' ')), LOADING, command);
      for (const command of [
        'HELLO 2',
        'CLIENT ID',
        'MESH STATUS',
        'COMMAND COUNT',
        'CONFIG GET save',
        'MULTI',
      ])
        assert.doesNotMatch(await client.call(...command.split(' ')), /^-/, command);
      assert.equal(await client.call('DISCARD'), '+OK\r\n');
      const info = await client.call('INFO', 'persistence');
      for (const field of [
        'loading:1',
        'loading_loaded_keys:250',
        'loading_total_keys:1000',
        'loading_eta_seconds:15',
      ])
        assert.ok(info.includes(`\r\n${field}\r\n`), field);
      engine.loading = null;
      assert.match(await client.call('INFO', 'persistence'), /\r\nloading:0\r\n/);
      assert.equal(await client.call('GET', 'k'), '$1\r\nv\r\n');
    }));

  it('breaks a transaction, begun before or meanwhile', () =>
    withDoor({}, async (_door, engine, client) => {
      assert.equal(await client.call('MULTI'), '+OK\r\n');
      assert.equal(await client.call('SET', 'k', 'v'), '+QUEUED\r\n');
      engine.loading = status;
      assert.equal(
        await client.call('EXEC'),
        '-EXECABORT Transaction discarded because of: LOADING the fake is loading\r\n',
      );
      assert.equal(await client.call('MULTI'), '+OK\r\n');
      assert.match(await client.call('SET', 'k', 'v'), LOADING);
      assert.match(await client.call('EXEC'), /^-EXECABORT /);
      engine.loading = null;
      assert.equal(await client.call('GET', 'k'), '$-1\r\n');
    }));

  it('keeps clients that look for it waiting until it is ready', () =>
    withDoor({}, async (door, engine) => {
      engine.loading = { ...status, secondsLeft: null };
      const client = new Redis({ port: door.port, maxLoadingRetryTime: 20 });
      try {
        const answer = client.set('k', 'v');
        await until(() => door.clients === 2, 'it has connected');
        engine.loading = null;
        assert.equal(await answer, 'OK');
      } finally {
        client.disconnect();
      }
    }));
});
