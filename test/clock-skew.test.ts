/** Clock skew: whose clock is wrong, how that is measured, and who is told. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Logger } from '../src/options.js';
import { ClockOffset } from '../src/sync/clock-offset.js';
import { judgeClocks } from '../src/sync/clock-skew.js';
import { MeshWorld } from './support/mesh-world.js';

// ---- the judgement

const CASES: readonly (readonly [string, readonly number[], ReturnType<typeof judgeClocks>])[] = [
  ['alone', [], { offsetMs: 0, spreadMs: 0, off: false, othersOff: [] }],
  ['two that agree', [40], { offsetMs: -20, spreadMs: 40, off: false, othersOff: [false] }],
  [
    'two that differ: nobody is to blame',
    [5000],
    { offsetMs: -2500, spreadMs: 5000, off: false, othersOff: [false] },
  ],
  [
    'exactly the tolerance is no difference',
    [1000, -3],
    { offsetMs: 0, spreadMs: 1003, off: false, othersOff: [false, false] },
  ],
  [
    'one of three is off: this one, behind',
    [5000, 5040],
    { offsetMs: -5000, spreadMs: 5040, off: true, othersOff: [false, false] },
  ],
  [
    'one of three is off: this one, ahead',
    [-70_000, -70_100],
    { offsetMs: 70_000, spreadMs: 70_100, off: true, othersOff: [false, false] },
  ],
  [
    'one of three is off: another',
    [5000, 40],
    { offsetMs: -40, spreadMs: 5000, off: false, othersOff: [true, false] },
  ],
  [
    'three that all differ: nobody is to blame',
    [5000, -5000],
    { offsetMs: 0, spreadMs: 10_000, off: false, othersOff: [false, false] },
  ],
  [
    'a chain of neighbours: nobody is to blame',
    [700, 1400],
    { offsetMs: -700, spreadMs: 1400, off: false, othersOff: [false, false] },
  ],
  [
    'two against two',
    [20, 5000, 5020],
    { offsetMs: -2510, spreadMs: 5020, off: false, othersOff: [false, false, false] },
  ],
  [
    'three against one of four',
    [3000, 3100, 3200],
    { offsetMs: -3050, spreadMs: 3200, off: true, othersOff: [false, false, false] },
  ],
  [
    'two of five are off, each in its own way',
    [10, 20, 9000, -9000],
    { offsetMs: -10, spreadMs: 18_000, off: false, othersOff: [false, false, true, true] },
  ],
  [
    'this one and another are off alike, of five',
    [10, 9000, 9010, 9020],
    { offsetMs: -9000, spreadMs: 9020, off: true, othersOff: [true, false, false, false] },
  ],
];

for (const [title, others, expected] of CASES) {
  test(`clocks: ${title}`, () => {
    assert.deepEqual(judgeClocks(others, 1000), expected);
    // Who is heard in which order says nothing.
    const turned = judgeClocks([...others].reverse(), 1000);
    assert.deepEqual({ ...turned, othersOff: [...turned.othersOff].reverse() }, expected);
  });
}

test('whoever looks, the same clocks are off', () => {
  for (const [title, others] of CASES) {
    const clocks = [0, ...others];
    const judged = clocks.map((own, i) =>
      judgeClocks(
        clocks.filter((_, j) => j !== i).map((theirs) => theirs - own),
        1000,
      ),
    );
    for (const [i, { othersOff }] of judged.entries()) {
      const seen = [...othersOff.slice(0, i), judged[i]!.off, ...othersOff.slice(i)];
      assert.deepEqual(
        seen,
        judged.map(({ off }) => off),
        `${title}, as ${i} sees it`,
      );
    }
  }
});

// ---- the measure

test('an offset is that of the heartbeat that was fastest, and half a round trip', () => {
  const offset = new ClockOffset();
  for (const lateMs of [80, 3000, 60]) {
    assert.equal(offset.ms, null, 'the first ones say nothing yet');
    offset.heard(10_000, 10_000 + lateMs);
  }
  assert.equal(offset.ms, -60);
  offset.greeted(110);
  assert.equal(offset.ms, -5);
  for (let i = 0; i < 7; i += 1) offset.heard(10_000, 10_000 + 1500);
  assert.equal(offset.ms, -5, 'a machine that is busy for seconds has no wrong clock');
  offset.heard(10_000, 10_000 + 1500);
  assert.equal(offset.ms, -1445, 'but one that is never in time has');
  offset.heard(20_000, 10_000);
  offset.greeted(10_000);
  assert.equal(offset.ms, 10_300, 'one that is set forward is seen at once; a slow greeting is no long way');
});

// ---- in a mesh

interface Said {
  readonly level: string;
  readonly message: string;
}

/** Keeps what is said of clocks. */
function listener(): { logger: Logger; said: Said[] } {
  const said: Said[] = [];
  const at = (level: string) => (_fields: object, message: string) => {
    if (message.includes('clock')) said.push({ level, message });
  };
  return { logger: { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }, said };
}

test('of three, the one whose clock is off says so, once; the others say that it is, and all is well after it was set', async () => {
  const world = new MeshWorld({ latencyMs: 150 });
  const [a, b, c] = [listener(), listener(), listener()];
  const clock = { aheadMs: 5_000 };
  const nodeA = await world.start('a', { logger: a.logger, clock });
  const nodeB = await world.start('b', { logger: b.logger });
  await world.start('c', { logger: c.logger });
  await world.until('a knows', () => nodeA.status().clock.off);
  await world.timers.advance(60_000);
  const own = nodeA.status();
  assert.equal(own.clock.heard, 2);
  assert.ok(
    Math.abs(own.clock.offsetMs - 5_000) <= 10,
    `${own.clock.offsetMs}: half the round trip is made up for`,
  );
  for (const peer of own.peers)
    assert.ok(Math.abs(peer.clockOffsetMs! + 5_000) <= 10, `${peer.clockOffsetMs}`);
  assert.equal(own.clock.warning, a.said[0]?.message);
  const others = nodeB.status().clock;
  assert.deepEqual([others.off, Math.abs(others.offsetMs) <= 10], [false, true]);
  assert.deepEqual([a.said.length, b.said.length, c.said.length], [1, 1, 1], 'once, not with each heartbeat');
  assert.equal(a.said[0]!.level, 'error');
  assert.match(
    a.said[0]!.message,
    /^the clock of this machine \(a\) is off, \d+ ms ahead of most other members': run NTP/,
  );
  for (const { said } of [b, c]) {
    assert.equal(said[0]!.level, 'warn');
    assert.match(
      said[0]!.message,
      /^clocks are off: that of a is \d+ ms ahead of most members': run NTP .* there/,
    );
  }
  clock.aheadMs = 0;
  await world.timers.advance(30_000);
  for (const { said } of [a, b, c])
    assert.deepEqual(
      [said.length, said[1]],
      [2, { level: 'info', message: 'the clocks of all members heard agree again' }],
    );
  assert.equal(nodeA.status().clock.warning, null);
  await world.stop();
});

test('of two that differ nobody is to blame, and both say so', async () => {
  const world = new MeshWorld();
  const [a, b] = [listener(), listener()];
  const nodeA = await world.start('a', { logger: a.logger, aheadMs: -3_000 });
  const nodeB = await world.start('b', { logger: b.logger });
  await world.timers.advance(60_000);
  for (const { clock } of [nodeA.status(), nodeB.status()]) assert.equal(clock.off, false);
  assert.deepEqual(a.said, [{ level: 'warn', message: nodeA.status().clock.warning }]);
  assert.match(
    a.said[0]!.message,
    /^clocks differ: that of b is 3000 ms ahead of this one's \(a\), and it can't be told which is wrong: run NTP/,
  );
  assert.match(b.said[0]!.message, /that of a is 3000 ms behind this one's \(b\)/);
  world.network.cut('a', 'b');
  await world.timers.advance(60_000);
  assert.deepEqual(nodeA.status().clock, { offsetMs: 0, spreadMs: 0, off: false, heard: 0, warning: null });
  assert.equal(a.said.length, 1, 'nobody agrees with it again');
  await world.stop();
});

test('a clock at the edge of what is allowed does not fill the log', async () => {
  const world = new MeshWorld();
  const a = listener();
  const clock = { aheadMs: 0 };
  await world.start('a', { logger: a.logger, maxClockOffsetMs: 100 });
  await world.start('b', { clock });
  for (let i = 0; i < 20; i += 1) {
    clock.aheadMs = i % 2 === 0 ? 110 : 90;
    await world.timers.advance(15_000);
  }
  assert.equal(a.said.length, 1);
  clock.aheadMs = 0;
  await world.timers.advance(15_000);
  assert.equal(a.said.length, 2);
  await world.stop();
});

test('who is ahead by less is told of nothing', async () => {
  const world = new MeshWorld({ latencyMs: 250 });
  const a = listener();
  const nodeA = await world.start('a', { logger: a.logger, aheadMs: 900 });
  await world.start('b');
  await world.start('c');
  await world.timers.advance(60_000);
  assert.deepEqual(a.said, []);
  assert.ok(Math.abs(nodeA.status().clock.offsetMs - 900) <= 10);
  await world.stop();
});
