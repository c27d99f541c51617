/**
 * What a member that is broken, or of another release, or hostile can send to a real node: each thing is refused with a
 * reason, counted, and leaves nothing behind. Ports in use and bad flags are in cli*.test.ts, the transport in mesh-hostile.test.ts.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { Redis } from 'ioredis';
import { replicaHash } from '../src/mesh/identity.js';
import { createLibp2pMesh } from '../src/mesh/libp2p.js';
import { createNode, type MeshNode } from '../src/node.js';
import type { Logger } from '../src/options.js';
import { pack } from '../src/replica/msgpack.js';
import { type FrontDoor, startFrontDoor } from '../src/resp/front-door.js';
import {
  decodeHeartbeat,
  encodeFrameChunk,
  encodeHeartbeat,
  type Heartbeat,
  PROTOCOL_VERSION,
  PROTOCOLS,
} from '../src/sync/messages.js';
import { type LaunchedValkey, launchValkey } from '../src/valkey-server/launch.js';
import { NOTHING_ELSE } from './support/heartbeat.js';
import { collect, type Member, memberOf } from './support/mesh-compliance.js';
import { RawClient } from './support/resp-client.js';
import { recordTemplates, type Templates, treeOf } from './support/templates.js';
import { waitFor } from './support/wait.js';

const MAX_VALUE_BYTES = 4096;

let valkey: LaunchedValkey;
let native: Redis;
let victim: MeshNode;
let honest: MeshNode;
let door: FrontDoor;
let templates: Templates;
const log: { level: string; message: string; fields: Record<string, unknown> }[] = [];
const unforeseen: unknown[] = [];
const note = (problem: unknown): void => void unforeseen.push(problem);

const logger = Object.fromEntries(
  ['debug', 'info', 'warn', 'error'].map((level) => [
    level,
    (fields: object, message: string) => log.push({ level, message, fields: { ...fields } }),
  ]),
) as unknown as Logger;

before(async () => {
  process.on('unhandledRejection', note);
  valkey = await launchValkey();
  native = new Redis(valkey.url);
  victim = await createNode({
    region: 'victim',
    store: valkey.url,
    maxValueBytes: MAX_VALUE_BYTES,
    heartbeatMs: 100,
    logger,
  });
  honest = await createNode({
    region: 'honest',
    peers: victim.addresses(),
    maxValueBytes: MAX_VALUE_BYTES,
    heartbeatMs: 100,
  });
  door = await startFrontDoor({ engine: victim.engine, port: 0, logger });
  templates = await recordTemplates();
  await waitFor(() => victim.status().peers.some(({ connected }) => connected), {
    what: 'they are connected',
  });
  await honest.whenReady();
  await honest.register('kept').set('honest');
  await honest.set('kept set').add('a', 'b');
  await honest.counter('kept count').increment(41);
});

after(async () => {
  await door?.stop();
  await honest?.stop();
  await victim?.stop();
  native?.disconnect();
  await valkey?.stop();
  process.off('unhandledRejection', note);
});

let writes = 0;

// Whatever it was: the node works, holds what it should and nothing else, and nothing escaped.
afterEach(async () => {
  writes += 1;
  await honest.register('alive').set(String(writes));
  await waitFor(async () => (await native.get('alive')) === String(writes), {
    what: 'a write of the honest node',
  });
  await victim.counter('writes').increment(1);
  await waitFor(async () => (await honest.digest()) === (await victim.digest()), { what: 'equal digests' });
  assert.deepEqual(await native.mget('kept', 'kept count'), ['honest', '41']);
  assert.deepEqual((await native.smembers('kept set')).sort(), ['a', 'b']);
  const keys = (await native.keys('*')).filter((key) => !key.startsWith('__mesh:')).sort();
  assert.deepEqual(keys, ['alive', 'kept', 'kept count', 'kept set', 'writes']);
  const { state, queue } = victim.status();
  assert.deepEqual([state, queue.operations], ['ready', 0]);
  assert.deepEqual(unforeseen, []);
  assert.deepEqual(
    log.filter(({ level }) => level === 'error'),
    [],
  );
});

interface Attacker extends Member {
  readonly replica: string;
}

/** The attacker's introduction, which is as it should be. */
const introduction = (replica: string): Heartbeat => ({
  ...NOTHING_ELSE,
  atMs: Date.now(),
  version: PROTOCOL_VERSION,
  region: 'attacker',
  replica,
  rules: decodeHeartbeat(templates.heartbeat).rules,
  applied: [],
});

/** A member of the mesh that sends and answers what it likes. It is gone when its attack is over. */
async function withAttacker(
  attack: (attacker: Attacker) => Promise<void>,
  answer: (protocol: string, replica: string) => Iterable<Uint8Array> = () => [],
): Promise<void> {
  const member = memberOf(createLibp2pMesh({ peers: victim.addresses() }));
  const { self } = member.mesh;
  const attacker = Object.assign(member, { replica: `${replicaHash(self)}.1` });
  attacker.answer = async function* (_from, protocol) {
    const answers = [...answer(protocol, attacker.replica)];
    if (protocol === PROTOCOLS.hello && answers.length === 0)
      yield encodeHeartbeat(introduction(attacker.replica));
    else yield* answers;
  };
  await attacker.mesh.start(attacker.handlers);
  try {
    const known = () => victim.status().peers.some(({ peerId, region }) => peerId === self && region !== '');
    await waitFor(() => known() && attacker.mesh.peers().includes(victim.peerId), { what: 'it is a member' });
    await attack(attacker);
  } finally {
    await attacker.mesh.stop();
  }
}

const reasons = (): string[] =>
  log.filter(({ message }) => message === 'refused a message').map(({ fields }) => String(fields.reason));

/** Positions in the tree of a frame. */
const [VERSION, NUMBER, STAMP, REPLICAS, KEYS] = [0, 1, 2, 3, 6] as const;

/** A frame as a real node makes it, in the attacker's own name, with some of its parts replaced. */
function frame(replica: string, changed: Record<number, unknown> = {}): Uint8Array {
  const tree = treeOf(templates.frames[0]!);
  const others = (tree[REPLICAS] as unknown[]).slice(1);
  return pack(Object.values({ ...tree, [NUMBER]: 1, [REPLICAS]: [replica, ...others], ...changed }));
}

/** The keys of that frame, which a test adds to. */
const keys = (): unknown[][] => treeOf(templates.frames[0]!)[KEYS] as unknown[][];

describe('A frame', () => {
  const bad: Record<string, readonly [RegExp, (replica: string) => Uint8Array]> = {
    'that is noise': [/not part of the protocol|middle|follow/, () => Uint8Array.of(0xc1, 0xff, 0xff, 0xff)],
    'that is text': [/follow the value/, () => new TextEncoder().encode('GET / HTTP/1.1\r\n\r\n')],
    'that is cut off': [/middle of a value/, (replica) => frame(replica).subarray(0, -3)],
    'with bytes after its end': [
      /follow the value/,
      (replica) => Buffer.concat([frame(replica), frame(replica)]),
    ],
    'of an unknown version': [
      /frame version 9 is unknown, this node speaks 1: run the same release everywhere/,
      (replica) => frame(replica, { [VERSION]: 9 }),
    ],
    'with a data type that nobody knows': [
      /unknown data type 77/,
      (replica) => frame(replica, { [KEYS]: [['k', 77, ['future']]] }),
    ],
    'with too many parts': [/seven parts/, (replica) => frame(replica, { 7: 'more' })],
    'with number 0': [/frame number/, (replica) => frame(replica, { [NUMBER]: 0 })],
    'with a stamp out of range': [/stamp/, (replica) => frame(replica, { [STAMP]: -1 })],
    'with one good key and one bad one': [
      /register|string|array|list|parts/,
      (replica) => frame(replica, { [KEYS]: [...keys(), ['half', 1, 'nonsense']] }),
    ],
    'with a key over the limit': [
      /longer than|over the limit/,
      (replica) => frame(replica, { [KEYS]: [['k'.repeat(MAX_VALUE_BYTES + 1), ...keys()[0]!.slice(1)]] }),
    ],
    'of a replica that is not its sender’s': [
      /does not belong to/,
      () => frame(`${replicaHash(honest.peerId)}.zzzzzz`),
    ],
    'of the very node that gets it': [/does not belong to/, () => frame(victim.status().replica)],
  };
  for (const [what, [reason, make]] of Object.entries(bad)) {
    it(`${what} is refused, counted, and said why`, async () => {
      await withAttacker(async ({ mesh, replica }) => {
        const before = { refused: victim.status().frames.refused, said: reasons().length };
        mesh.broadcast(make(replica));
        await waitFor(() => victim.status().frames.refused > before.refused, { what: 'it is counted' });
        assert.match(reasons()[before.said] ?? 'nothing was said', reason);
      });
    });
  }

  it('from far in the future is held back and shown, and applied by nobody', async () => {
    await withAttacker(async ({ mesh, replica }) => {
      const hoursAhead = (treeOf(templates.frames[0]!)[STAMP] as number) + 2 * 3_600_000 * 4096;
      mesh.broadcast(frame(replica, { [STAMP]: hoursAhead }));
      await waitFor(() => victim.status().frames.skewed === 1, { what: 'it is shown as skewed' });
    });
  });
});

describe('A heartbeat', () => {
  const bad: Record<string, readonly [RegExp, (replica: string) => Uint8Array]> = {
    'of an unknown version': [
      /protocol version 9 is unknown, this node speaks 2: run the same release everywhere/,
      (replica) => encodeHeartbeat({ ...introduction(replica), version: 9 }),
    ],
    'of another’s replica': [
      /does not belong to/,
      () => encodeHeartbeat(introduction(`${replicaHash(honest.peerId)}.1`)),
    ],
    'with a region that isn’t one': [
      /region/,
      (replica) => encodeHeartbeat({ ...introduction(replica), region: ' ' }),
    ],
    'with half a mark': [
      /groups of 3/,
      (replica) => pack(['h', 2, 'x', replica, 'default', ['r.1', 1], 0, 0, [], [], [], '', []]),
    ],
    'with a mark without a stamp': [
      /stamp/,
      (replica) => pack(['h', 2, 'x', replica, 'default', ['r.1', 1, 'x'], 0, 0, [], [], [], '', []]),
    ],
    'with more members than there may be': [
      /members/,
      (replica) =>
        encodeHeartbeat({
          ...introduction(replica),
          members: Array.from({ length: 257 }, (_, i) => `p${i}`),
        }),
    ],
    'with a forgotten member that isn’t one': [
      /peer id/,
      (replica) => encodeHeartbeat({ ...introduction(replica), forgotten: [{ peerId: '', born: 1 }] }),
    ],
    'with half a range of held-back frames': [
      /groups of 3/,
      (replica) => pack(['h', 2, 'x', replica, 'default', [], 0, 0, ['r.1', 1], [], [], '', []]),
    ],
    'with a place that is none': [
      /place/,
      (replica) => encodeHeartbeat({ ...introduction(replica), place: 'x'.repeat(65) }),
    ],
    'with siblings that are none': [
      /peer id/,
      (replica) => encodeHeartbeat({ ...introduction(replica), siblings: [''] }),
    ],
    'without an end': [/./, () => pack(['h', 2])],
  };
  for (const [what, [reason, make]] of Object.entries(bad)) {
    it(`${what} is refused, counted, and said why`, async () => {
      await withAttacker(async ({ mesh, replica }) => {
        const before = { refused: victim.status().frames.refused, said: reasons().length };
        mesh.broadcast(make(replica));
        await waitFor(() => victim.status().frames.refused > before.refused, { what: 'it is counted' });
        assert.match(reasons()[before.said] ?? 'nothing was said', reason);
      });
    });
  }

  it('of a member with other rules keeps it out until its rules fit', async () => {
    await withAttacker(async ({ mesh, replica }) => {
      const said = (pattern: RegExp) =>
        waitFor(() => reasons().some((it) => pattern.test(it)), { what: `${pattern}` });
      mesh.broadcast(encodeHeartbeat({ ...introduction(replica), rules: 'others' }));
      await said(/its rules \(others\) differ from .*: give every member the same rules/);
      const { refused } = victim.status().frames;
      mesh.broadcast(frame(replica));
      await waitFor(() => victim.status().frames.refused > refused, { what: 'its frame is refused' });
      assert(victim.status().peers.some(({ region, connected }) => region === 'honest' && connected));
    });
  });
});

describe('A request', () => {
  const bad: Record<string, readonly [protocol: string, body: Uint8Array]> = {
    'that nobody knows': ['nonsense', pack([])],
    'for frames, without a body': [PROTOCOLS.frames, new Uint8Array(0)],
    'for frames of no replica': [PROTOCOLS.frames, pack(['', 1, 2])],
    'for more frames than there are atoms': [PROTOCOLS.frames, pack([`x.1`, 1, 2 ** 52])],
    'for state, with a slot that does not exist': [PROTOCOLS.state, pack([16384, 1])],
    'for state, with noise': [PROTOCOLS.state, Uint8Array.of(0xdd, 0xff, 0xff, 0xff, 0xff)],
    'for applied frames, with text for a number': [PROTOCOLS.applied, pack(['x.1', 'many', 1])],
    'to be greeted, with a frame': [PROTOCOLS.hello, pack([1, 2, 3])],
  };
  for (const [what, [protocol, body]] of Object.entries(bad)) {
    it(`${what} gets an error for an answer`, async () => {
      await withAttacker(async ({ mesh }) => {
        await assert.rejects(collect(mesh.request(victim.peerId, protocol, body)), { code: 'PEER' });
      });
    });
  }
});

describe('An answer', () => {
  /** A member that says it has frames which the victim lacks, and answers what it is asked with something else. */
  async function withLiar(
    claimed: number,
    answers: (replica: string) => Record<string, Uint8Array[]>,
  ): Promise<void> {
    const asked = new Map<string, number>();
    const claim = (replica: string): Uint8Array =>
      encodeHeartbeat({ ...introduction(replica), applied: [{ replica, number: claimed, stamp: 4096 }] });
    await withAttacker(
      async ({ replica, mesh }) => {
        const wanted = Object.keys(answers(replica));
        await waitFor(
          () => {
            mesh.broadcast(claim(replica));
            return wanted.every((protocol) => (asked.get(protocol) ?? 0) >= 2);
          },
          { what: `it is asked for ${wanted.join()}`, deadlineMs: 30_000 },
        );
      },
      (protocol, replica) => {
        asked.set(protocol, (asked.get(protocol) ?? 0) + 1);
        return protocol === PROTOCOLS.hello ? [claim(replica)] : (answers(replica)[protocol] ?? []);
      },
    );
  }

  it('to a request for frames that holds none of them changes nothing', async () => {
    await withLiar(3, () => ({ frames: [Uint8Array.of(0xc1)] }));
  });

  it('to a request for frames that is empty, and so is the state asked for then, changes nothing', async () => {
    await withLiar(3, () => ({ frames: [], state: [] }));
  });

  it('to a request for frames that holds another replica’s changes nothing', async () => {
    const refused = victim.status().frames.refused;
    await withLiar(3, () => ({ frames: [encodeFrameChunk([frame(`${replicaHash(honest.peerId)}.zzzz`)])] }));
    assert(victim.status().frames.refused > refused);
  });

  it('to a request for frames with ever the same one changes nothing', async () => {
    await withLiar(3, (replica) => ({
      frames: Array.from({ length: 50 }, () => encodeFrameChunk([frame(replica, { [NUMBER]: 2 })])),
    }));
  });

  it('to a request for state that is nonsense changes nothing', async () => {
    await withLiar(1_000_000, () => ({ state: [Uint8Array.of(0xc1)] }));
    await withLiar(1_000_000, () => ({ state: [pack([[], 1]), pack([['no stamp', [], 'k', 1, []]])] }));
    await withLiar(1_000_000, () => ({ state: [pack([[], 1]), pack([[4096, ['r.1'], 'k', 77, []]])] }));
  });
});

describe('A client', () => {
  it('that sends wrong commands gets an error for each, and writes nothing, not even half', async () => {
    const client = await RawClient.connect(door.port);
    const big = 'x'.repeat(MAX_VALUE_BYTES);
    const wrong: readonly (readonly [RegExp, readonly string[]])[] = [
      [/^-ERR unknown command/, ['NONSENSE', 'k']],
      [/^-ERR wrong number of arguments for 'get' command/, ['GET']],
      [/^-ERR wrong number of arguments for 'mset' command/, ['MSET', 'k', 'v', 'half']],
      [/^-ERR syntax error/, ['SET', 'k', 'v', 'NX', 'XX']],
      [/^-ERR value is not an integer/, ['SET', 'k', 'v', 'EX', 'soon']],
      [/^-ERR invalid expire time/, ['SET', 'k', 'v', 'EX', '0']],
      [/^-ERR value is not an integer/, ['INCRBY', 'k', 'many']],
      [/^-ERR value is not an integer/, ['INCR', 'kept']],
      [/^-WRONGTYPE/, ['SADD', 'kept', 'm']],
      [/^-WRONGTYPE/, ['GET', 'kept set']],
      [/^-ERR .*maximum allowed size/, ['APPEND', 'kept', big]],
      [/^-ERR/, ['SET', '__mesh:meta', 'mine']],
      [/^-ERR/, ['DEL', 'kept', '__mesh:meta']],
      [/^-ERR/, ['FLUSHALL']],
      [/^-ERR/, ['EVAL', 'return 1', '0']],
    ];
    for (const [reply, command] of wrong)
      assert.match(await client.call(...command), reply, command.join(' ').slice(0, 80));
    for (const command of [['MULTI'], ['SET', 'half', '1'], ['NONSENSE'], ['EXEC']]) client.send(...command);
    const replies = await client.replies(4);
    assert.match(replies[3]!, /^-EXECABORT/);
    assert.equal(await client.call('GET', 'kept'), '$6\r\nhonest\r\n');
    client.close();
  });

  it('that sends a value over the limit, or no RESP at all, is told so and disconnected; others go on', async () => {
    const other = await RawClient.connect(door.port);
    const streams: readonly (readonly [RegExp, string])[] = [
      [/invalid bulk length/, `*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$${MAX_VALUE_BYTES + 1}\r\n`],
      [/invalid multibulk length/, '*1048577\r\n'],
      [/expected '\$'/, '*2\r\n:1\r\n'],
      [/unbalanced quotes/, 'SET k "half\r\n'],
    ];
    for (const [reply, bytes] of streams) {
      const client = await RawClient.connect(door.port);
      client.write(bytes);
      assert.match(await client.rest(), reply);
    }
    assert.equal(await other.call('PING'), '+PONG\r\n');
    other.close();
  });

  it('that goes away in the middle of a command writes nothing of it', async () => {
    const client = await RawClient.connect(door.port);
    client.write('*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$10\r\n12345');
    await waitFor(() => door.clients === 1, { what: 'the client is there' });
    client.close();
    await waitFor(() => door.clients === 0, { what: 'it is gone' });
  });
});
