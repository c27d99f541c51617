/**
 * Random mutations of everything that members say to each other, against a live node. FUZZ_SEED=n repeats a run,
 * FUZZ_ROUNDS=n makes it longer.
 *
 * The network is the loopback mesh, so that thousands go by in a second. A mutation can still be a valid message, of which
 * a node believes the sender what it says of itself; so all frames that could be applied are given a number
 * that nothing leads up to.
 */
import assert from 'node:assert/strict';
import { setMaxListeners } from 'node:events';
import { it } from 'node:test';
import { replicaHash } from '../src/mesh/identity.js';
import { LoopbackNetwork } from '../src/mesh/loopback.js';
import { createNode, type MeshNode } from '../src/node.js';
import { silentLogger } from '../src/options.js';
import { pack, unpack } from '../src/replica/msgpack.js';
import { decodeHeartbeat, encodeHeartbeat, isHeartbeat, PROTOCOLS } from '../src/sync/messages.js';
import { Random } from './support/crdt-runs.js';
import { NOTHING_ELSE } from './support/heartbeat.js';
import { type Member, memberOf } from './support/mesh-compliance.js';
import { recordTemplates, treeOf } from './support/templates.js';
import { waitFor } from './support/wait.js';

const SEED = Number(process.env.FUZZ_SEED ?? 1);
const ROUNDS = Number(process.env.FUZZ_ROUNDS ?? 4_000);
const HELD_BACK_BYTES = 1024 * 1024;

/** Frames from this number on have no predecessor, so none is ever applied. */
const UNREACHABLE = 1_000_000;

/** What a part of a message is replaced with. */
const ODD: readonly unknown[] = [
  ...[
    0,
    1,
    2,
    77,
    -1,
    0.5,
    4096,
    2 ** 31,
    2 ** 52,
    Number.MAX_SAFE_INTEGER,
    Number.POSITIVE_INFINITY,
    Number.NaN,
  ],
  ...['', ' ', 'x', 'é', 'x'.repeat(5000), '99999999999999999999', null, true, []],
  ...[[[]], [0, 1, 2], Buffer.from([0xff, 0xfe]), Buffer.alloc(0)],
];

/** Replaces, repeats, leaves out or swaps parts of a tree, and keeps it a tree. */
function mutateTree(tree: unknown, random: Random): unknown {
  if (!Array.isArray(tree) || tree.length === 0 || random.below(8) === 0) return random.pick(ODD);
  const out = [...tree];
  const at = random.below(out.length);
  const kind = random.below(8);
  if (kind === 0) out.splice(at, 1);
  else if (kind === 1) out.splice(at, 0, out[random.below(out.length)]);
  else if (kind === 2) [out[at], out[0]] = [out[0], out[at]];
  else out[at] = mutateTree(out[at], random);
  return out;
}

/** Spoils a message: its parts, so that it is one still, or its bytes. */
function mutate(bytes: Uint8Array, random: Random): Uint8Array {
  if (bytes.length === 0 || random.below(3) === 0) return mutateBytes(bytes, random);
  const tree = mutateTree(unpack(bytes), random);
  const isReachable = Array.isArray(tree) && tree.length === 7 && Number(tree[1]) < UNREACHABLE;
  return pack(isReachable ? Object.values({ ...tree, 1: UNREACHABLE }) : tree);
}

/** Spoils bytes in one to four places. */
function mutateBytes(bytes: Uint8Array, random: Random): Uint8Array {
  let out = Buffer.from(bytes);
  for (let times = 1 + random.below(4); times > 0; times -= 1) {
    const at = random.below(out.length + 1);
    const some = Buffer.from(Array.from({ length: 1 + random.below(8) }, () => random.below(256)));
    const count = random.below(8);
    switch (random.below(6)) {
      case 0:
        if (out.length > 0) out[random.below(out.length)]! ^= 1 << random.below(8);
        break;
      case 1:
        if (out.length > 0)
          out[random.below(out.length)] = random.pick([0, 1, 0x7f, 0x80, 0x90, 0xc0, 0xdd, 0xff]);
        break;
      case 2:
        out = Buffer.concat([out.subarray(0, at), some, out.subarray(at)]);
        break;
      case 3:
        out = Buffer.concat([out.subarray(0, at), out.subarray(at + count)]);
        break;
      case 4:
        out = Buffer.concat([out.subarray(0, at), out.subarray(random.below(out.length + 1))]);
        break;
      default:
        out = out.subarray(0, at);
    }
  }
  return out;
}

/** What the fuzzed node holds, to be compared. */
async function contents(node: MeshNode): Promise<unknown> {
  const members: string[] = [];
  for (const key of ['set', 'alive'])
    for await (const member of node.set(key)) members.push(`${key} ${member}`);
  const [text, count] = [await node.register('text').get(), await node.counter('count').value()];
  return { text, count, members: members.sort(), digest: await node.digest() };
}

it(`a live node takes thousands of spoiled messages, and is what it was before (seed ${SEED})`, async (t) => {
  const unforeseen: unknown[] = [];
  const note = (problem: unknown): void => void unforeseen.push(problem);
  for (const event of ['unhandledRejection', 'uncaughtExceptionMonitor', 'warning'] as const) {
    process.on(event, note);
    t.after(() => process.off(event, note));
  }
  const random = new Random(SEED);
  const templates = await recordTemplates();
  const network = new LoopbackNetwork();
  const errors: unknown[] = [];
  const options = {
    heartbeatMs: 20,
    antiEntropyMs: 200,
    maxValueBytes: 4096,
    heldBackBytes: HELD_BACK_BYTES,
  };
  const victim = await createNode({
    ...options,
    region: 'victim',
    mesh: network.mesh('victim'),
    logger: { ...silentLogger, error: (...args: unknown[]) => void errors.push(args) },
  });
  t.after(() => victim.stop());
  const honest = await createNode({ ...options, region: 'honest', mesh: network.mesh('honest') });
  t.after(() => honest.stop());
  await victim.register('text').set('kept');
  await honest.counter('count').increment(7);
  await honest.set('set').add('a', 'b');
  await waitFor(
    async () => (await victim.digest()) === (await honest.digest()) && (await victim.set('set').has('b')),
  );
  const before = await contents(victim);
  const heapBefore = process.memoryUsage().heapUsed;

  const replica = `${replicaHash('attacker')}.1`;
  const bodies: Uint8Array[] = [];
  const answers = [
    pack([Buffer.from(templates.frames[0]!)]),
    pack([[replica, 3, 4096], 1]),
    templates.heartbeat,
  ];
  const attacker: Member = memberOf(network.mesh('attacker'));
  attacker.answer = async function* (_from, protocol, body) {
    // What the victim itself asks for is the best of templates.
    if (bodies.length < 64) bodies.push(body);
    if (protocol === PROTOCOLS.hello) yield introduction(1_000);
    for (let chunks = random.below(4); chunks > 0; chunks -= 1) yield mutate(random.pick(answers), random);
  };
  const { rules, version } = decodeHeartbeat(templates.heartbeat);
  function introduction(number: number): Uint8Array {
    const applied = [{ replica, number, stamp: 4096 }];
    return encodeHeartbeat({
      ...NOTHING_ELSE,
      atMs: Date.now(),
      version,
      region: 'attacker',
      replica,
      rules,
      applied,
    });
  }
  await attacker.mesh.start(attacker.handlers);
  t.after(() => attacker.mesh.stop());
  await waitFor(() =>
    victim.status().peers.some(({ region, connected }) => region === 'attacker' && connected),
  );

  const frames = templates.frames.flatMap((template) => {
    const tree = treeOf(template);
    const named = (own: string) =>
      pack(Object.values({ ...tree, 1: UNREACHABLE, 3: [own, ...(tree[3] as unknown[]).slice(1)] }));
    return [named(replica), named(victim.status().replica), named(honest.status().replica)];
  });
  const requests: [string, Uint8Array][] = [
    [PROTOCOLS.hello, introduction(5)],
    [PROTOCOLS.frames, pack([victim.status().replica, 1, 3])],
    [PROTOCOLS.applied, pack([victim.status().replica, 1, 50])],
    [PROTOCOLS.applied, pack([replica, 1_000_000, 50])],
    [PROTOCOLS.state, pack([1, 2, 3, 4])],
    ['nonsense', pack([])],
  ];
  const ended = new AbortController();
  setMaxListeners(0, ended.signal);
  let refusedRequests = 0;
  let answered = 0;
  const asking = new Set<Promise<void>>();
  const ask = async (protocol: string, body: Uint8Array): Promise<void> => {
    try {
      const request = attacker.mesh.request('victim', protocol, body, {
        timeoutMs: 200,
        signal: ended.signal,
      });
      for await (const chunk of request) assert(chunk.length < 1024 * 1024);
      answered += 1;
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'PEER');
      refusedRequests += 1;
    }
  };
  for (let round = 0; round < ROUNDS; round += 1) {
    // A spoiled introduction may have got it refused; that would make all the rest too easy.
    if (round % 5 === 0) attacker.mesh.broadcast(introduction(1_000));
    attacker.mesh.broadcast(
      mutate(random.below(4) === 0 ? introduction(random.below(9_000)) : random.pick(frames), random),
    );
    const [protocol, body] = random.pick(requests);
    const asked = ask(
      protocol,
      mutate(random.below(4) === 0 && bodies.length > 0 ? random.pick(bodies) : body, random),
    );
    asking.add(asked);
    void asked.finally(() => asking.delete(asked));
    if (asking.size >= 64) await Promise.race(asking);
    if (round % 100 === 0) await honest.set('alive').add(String(round));
  }
  ended.abort();
  await Promise.all(asking);
  for (let round = 0; round < ROUNDS; round += 100) await honest.set('alive').delete(String(round));

  await waitFor(async () => (await victim.digest()) === (await honest.digest()), { what: 'equal digests' });
  const { frames: counted, state } = victim.status();
  t.diagnostic(
    `${ROUNDS} spoiled broadcasts, ${counted.refused} messages refused; ${refusedRequests} requests refused, ${answered} answered; ` +
      `${counted.heldBack} frames held back; ${Math.round((process.memoryUsage().heapUsed - heapBefore) / 1048576)} MiB more`,
  );
  assert.deepEqual(unforeseen, []);
  assert.deepEqual(errors, []);
  assert.equal(state, 'ready');
  assert(counted.refused > ROUNDS / 4);
  assert.deepEqual(await contents(victim), before);
  assert(attacker.heard.some(({ bytes }) => isHeartbeat(bytes)));
  assert(process.memoryUsage().heapUsed - heapBefore < 128 * 1024 * 1024);
});
