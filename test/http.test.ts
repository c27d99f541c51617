import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { after, before, describe, it } from 'node:test';
import type { LoadingStatus, NodeStatus } from '../src/engine.js';
import { ConfigError } from '../src/errors.js';
import { type HttpDoor, startHttp } from '../src/ops/http.js';

const LOADING: LoadingStatus = {
  peer: 'P2',
  region: 'us',
  keys: 250,
  keysTotal: 1000,
  bytes: 3 * 1024 * 1024,
  keysPerSecond: 50,
  secondsLeft: 15,
  sinceMs: 1,
};

function statusOf(state: NodeStatus['state']): NodeStatus {
  return {
    version: '0.1.0',
    peerId: 'p',
    region: 'eu',
    replica: 'abcdefgh.1',
    state,
    loading: state === 'loading' ? LOADING : null,
    addresses: [],
    startedAtMs: 1,
    uptimeMs: 2,
    store: { kind: 'memory' },
    frames: { own: 0, applied: 0, heldBack: 0, skewed: 0, repaired: 0, refused: 0 },
    queue: { operations: 0, bytes: 0 },
    conflicts: 0,
    clock: { offsetMs: 0, spreadMs: 0, off: false, heard: 0, warning: null },
    forgetting: { stableMs: null, members: [], waitingFor: [], forgotten: 0, swept: 0 },
    peers: [],
  };
}

describe('The HTTP door', () => {
  let state: NodeStatus['state'] = 'ready';
  let broken = false;
  let door: HttpDoor;
  const engine = {
    status: () => {
      if (broken) throw new Error('no status today');
      return statusOf(state);
    },
  };
  const fetchPath = (path: string, init?: RequestInit) => fetch(`http://127.0.0.1:${door.port}${path}`, init);

  before(async () => {
    door = await startHttp({ engine });
  });
  after(() => door.stop());

  it('says that the process is up, whatever the node’s state', async () => {
    for (state of ['starting', 'store-unavailable', 'ready'] as const) {
      const answer = await fetchPath('/healthz');
      assert.equal(answer.status, 200);
      assert.deepEqual(await answer.json(), { status: 'up' });
    }
  });

  it('is ready when the node is, and else says why not', async () => {
    state = 'ready';
    const ready = await fetchPath('/readyz');
    assert.deepEqual([ready.status, await ready.json()], [200, { status: 'ready' }]);
    for (const [not, reason] of [
      ['starting', 'the node is starting'],
      ['store-unavailable', "the node can't reach its store"],
      ['stopping', 'the node is stopping'],
    ] as const) {
      state = not;
      const answer = await fetchPath('/readyz');
      assert.deepEqual([answer.status, await answer.json()], [503, { status: not, reason }]);
    }
    state = 'ready';
  });

  it('says while it loads how far it is, and is alive but not ready', async () => {
    state = 'loading';
    const answer = await fetchPath('/readyz');
    const reason =
      'the node lacks what the other members have: loading from us: 250 of 1000 keys, 3.0 MiB, 50 keys/s, 15 s left';
    assert.deepEqual(
      [answer.status, await answer.json()],
      [503, { status: 'loading', reason, loading: LOADING }],
    );
    assert.equal((await fetchPath('/healthz')).status, 200);
    state = 'ready';
  });

  it('gives the node’s status as JSON that is not cached', async () => {
    const answer = await fetchPath('/api/status');
    assert.match(answer.headers.get('content-type') ?? '', /application\/json/);
    assert.equal(answer.headers.get('cache-control'), 'no-store');
    assert.deepEqual(await answer.json(), statusOf('ready'));
  });

  it('answers HEAD, refuses other methods with 405 and other paths with 404', async () => {
    assert.equal((await fetchPath('/healthz', { method: 'HEAD' })).status, 200);
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH']) {
      const refused = await fetchPath('/api/status', { method });
      assert.deepEqual([refused.status, refused.headers.get('allow')], [405, 'GET, HEAD']);
      assert.deepEqual(await refused.json(), { error: `${method} is not allowed; use GET` });
    }
    const missing = await fetchPath('/nothing?x=1');
    assert.equal(missing.status, 404);
    assert.match(((await missing.json()) as { error: string }).error, /there is nothing at \/nothing; try/);
  });

  it('hides the inside of an error', async () => {
    broken = true;
    const answer = await fetchPath('/api/status');
    broken = false;
    assert.equal(answer.status, 500);
    assert.deepEqual(await answer.json(), { error: 'internal error; the log of the peer says more' });
  });

  it('says which port is in use', async () => {
    await assert.rejects(
      startHttp({ engine, port: door.port }),
      (error) =>
        error instanceof ConfigError &&
        error.message === `--http 127.0.0.1:${door.port}: the port is in use; choose another one`,
    );
  });

  it('frees its port when it stops, though a client keeps its connection', async () => {
    const other = await startHttp({ engine });
    await (await fetch(`http://127.0.0.1:${other.port}/healthz`)).text();
    await other.stop();
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(other.port, '127.0.0.1', resolve);
    });
    await new Promise((resolve) => server.close(resolve));
  });
});
