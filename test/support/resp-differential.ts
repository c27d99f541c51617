/**
 * The same random commands to the front door and to a real valkey-server: the replies must be equal, byte for byte,
 * except for the order of members and keys, and for a second or two of what is left of a time.
 */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { after, before, describe, it } from 'node:test';
import { silentLogger } from '../../src/options.js';
import { startFrontDoor } from '../../src/resp/front-door.js';
import { type LaunchedValkey, launchValkey } from '../../src/valkey-server/launch.js';
import { encode, RawClient } from './resp-client.js';
import type { EngineUnderTest } from './resp-compliance.js';

/** How two replies are compared. */
type Comparison = 'equal' | 'any order' | 'about the same time' | 'same length' | 'errors only';

interface Sent {
  readonly args: readonly string[];
  readonly compare: Comparison;
}

/** A small generator of pseudo-random numbers (mulberry32), so that a seed is a run. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Makes commands, good and bad. */
class CommandSource {
  readonly #random: () => number;
  #inMulti = false;
  /** Spans are never given twice: with equal ones, GT and LT would depend on the millisecond. */
  #span = 1000;

  constructor(seed: number) {
    this.#random = randomOf(seed);
  }

  next(): Sent {
    const sent = this.#spoil(this.#good());
    const name = (sent.args[0] ?? '').toLowerCase();
    if (name === 'multi' && sent.args.length === 1) this.#inMulti = true;
    // An EXEC that is refused ends the transaction, a DISCARD that is refused doesn't.
    if (name === 'exec' || (name === 'discard' && sent.args.length === 1)) this.#inMulti = false;
    return sent;
  }

  #pick<T>(values: readonly T[]): T {
    return values[Math.floor(this.#random() * values.length)] as T;
  }

  #some<T>(make: () => T, max: number): T[] {
    return Array.from({ length: 1 + Math.floor(this.#random() * max) }, make);
  }

  #key = (): string => this.#pick(['a', 'b', 'c', 'd', 'e', 'k\x00\xff', 's1', 's2', 's3', 's\r\n']);
  /** Keys that hold no number of more digits than a long double keeps. */
  #floatKey = (): string => this.#pick(['f1', 'f2', 'f3']);
  #value = (): string =>
    this.#pick([
      '',
      '0',
      '1',
      '-5',
      '9223372036854775807',
      '-9223372036854775808',
      'text',
      '\x00\xff\r\n',
      '007',
      'x'.repeat(300),
    ]);
  #member = (): string => this.#pick(['', 'm', 'n', 'o', '1', '22', '\x00\xff', 'long member '.repeat(9)]);
  #number = (): string =>
    this.#pick([
      '0',
      '1',
      '-1',
      '7',
      '1000000',
      '9223372036854775807',
      '-9223372036854775808',
      '9223372036854775808',
      'abc',
      '',
      '+1',
      '01',
      ' 1',
      '1.5',
      '-0',
    ]);

  /** Sums of these are exact in Valkey's long double too: their fractions are powers of two. */
  #float = (): string =>
    this.#pick([
      '0.5',
      '-0.25',
      '1.125',
      '+.75',
      '3.',
      '-0',
      '007.50',
      '5.0e3',
      '2.5E-1',
      '-1e2',
      '1000000',
      '-0.0625',
      'inf',
      '-Infinity',
      'nan',
      'abc',
      '',
      ' 1',
      '1 ',
      '1e',
      '.',
      '+',
      '1.5.',
      '1_0',
      '1,5',
      '1e9999',
    ]);

  #time(unit: string): string {
    if (this.#random() < 0.2) {
      const far = unit === 'EX' || unit === 'EXAT' || unit === 'PX' ? ['9223372036854775807'] : [];
      return this.#pick(['0', '-1', 'abc', '', '1.5', '-9223372036854775808', ...far]);
    }
    this.#span += 13;
    const seconds = unit.endsWith('AT') ? 4_000_000_000 + this.#span : this.#span;
    if (unit.endsWith('AT') && this.#random() < 0.1) return '1';
    return String(unit.startsWith('P') ? seconds * 1000 : seconds);
  }

  #setOptions(): string[] {
    const options: string[] = [];
    while (this.#random() < 0.5) {
      const option = this.#pick([
        'NX',
        'XX',
        'GET',
        'KEEPTTL',
        'EX',
        'PX',
        'EXAT',
        'PXAT',
        'PERSIST',
        'nx',
        'ex',
        'Get',
        'foo',
      ]);
      options.push(option);
      if (/^(EX|PX|EXAT|PXAT)$/i.test(option)) options.push(this.#time(option.toUpperCase()));
    }
    return options;
  }

  #good(): Sent {
    const key = this.#key();
    const exact = (...args: string[]): Sent => ({ args, compare: 'equal' });
    const other = (compare: Comparison, ...args: string[]): Sent => ({ args, compare });
    const kinds: readonly (() => Sent)[] = [
      () => exact('GET', key),
      () => exact('SET', key, this.#value()),
      () => exact('SET', key, this.#value(), ...this.#setOptions()),
      () => exact('SET', key, this.#value(), ...this.#setOptions()),
      () => exact('GETEX', key, ...this.#setOptions()),
      () => exact('GETSET', key, this.#value()),
      () => exact('GETDEL', key),
      () => exact('SETNX', key, this.#value()),
      () => exact('SETEX', key, this.#time('EX'), this.#value()),
      () => exact('PSETEX', key, this.#time('PX'), this.#value()),
      () => exact('MGET', ...this.#some(this.#key, 5)),
      () => exact('MSET', ...this.#some(() => [this.#key(), this.#value()], 4).flat()),
      () => exact('MSETNX', ...this.#some(() => [this.#key(), this.#value()], 2).flat()),
      () => exact('STRLEN', key),
      () => exact('APPEND', key, this.#value()),
      () => exact(this.#pick(['INCR', 'DECR']), key),
      () => exact(this.#pick(['INCRBY', 'DECRBY']), key, this.#number()),
      () => exact('INCRBYFLOAT', this.#floatKey(), this.#float()),
      () => exact('INCRBYFLOAT', this.#floatKey(), this.#float()),
      () => exact('SET', this.#floatKey(), this.#float()),
      () => exact(this.#pick(['GET', 'INCR', 'DECR', 'STRLEN', 'GETDEL']), this.#floatKey()),
      () => exact(this.#pick(['SADD', 'SREM']), 'fs', 'm'),
      () => exact('INCRBYFLOAT', 'fs', this.#pick(['abc', 'inf'])),
      () => exact('SADD', key, ...this.#some(this.#member, 5)),
      () => exact('SADD', this.#pick(['s1', 's2', 's3']), ...this.#some(this.#member, 5)),
      () => exact('SREM', key, ...this.#some(this.#member, 5)),
      () => other('any order', 'SMEMBERS', key),
      () => exact('SISMEMBER', key, this.#member()),
      () => exact('SMISMEMBER', key, ...this.#some(this.#member, 5)),
      () => exact('SCARD', key),
      () => other('any order', 'SPOP', key, this.#pick(['1000000', '0', '-1', 'abc', ''])),
      () => other('same length', 'SRANDMEMBER', key),
      () =>
        other(
          'same length',
          'SRANDMEMBER',
          key,
          this.#pick(['0', '3', '-3', '1000000', 'abc', '-9223372036854775808']),
        ),
      () => exact(this.#pick(['DEL', 'UNLINK', 'EXISTS', 'TOUCH']), ...this.#some(this.#key, 4)),
      () => exact('TYPE', key),
      () => {
        const command = this.#pick(['EXPIRE', 'PEXPIRE', 'EXPIREAT', 'PEXPIREAT']);
        const unit = { EXPIRE: 'EX', PEXPIRE: 'PX', EXPIREAT: 'EXAT', PEXPIREAT: 'PXAT' }[command] as string;
        const options: string[] = [];
        while (this.#random() < 0.4) options.push(this.#pick(['NX', 'XX', 'GT', 'LT', 'gt', 'foo']));
        return exact(command, key, this.#time(unit), ...options);
      },
      () => other('about the same time', this.#pick(['TTL', 'PTTL', 'EXPIRETIME', 'PEXPIRETIME']), key),
      () => exact('PERSIST', key),
      () => exact('DBSIZE'),
      () =>
        other(
          'any order',
          'KEYS',
          this.#pick(['*', '?', 's*', '[a-c]', '[^a]', 'k*', 's\\*', '[', 'none*', '*1']),
        ),
      () =>
        other(
          'any order',
          'SCAN',
          '0',
          'COUNT',
          '1000',
          ...this.#pick([[], ['MATCH', 's*'], ['TYPE', 'set'], ['type', 'STRING'], ['TYPE', 'hash']]),
        ),
      () =>
        other(
          'errors only',
          'SCAN',
          // Cursors that no scan has given are the store's business.
          this.#pick(['0', '1', '-1', 'abc', '', '+1', '01', ' 1', '-0', '1.5']),
          ...this.#pick([['COUNT', this.#number()], ['MATCH'], ['TYPE', 'foo'], ['foo', 'bar']]),
        ),
      () => exact('PING', ...this.#pick([[], ['hi'], ['a', 'b']])),
      () => exact('ECHO', this.#value()),
      () =>
        exact(this.#pick(['nonsense', 'GETT', '', 'f\r\no', 'x'.repeat(200)]), ...this.#some(this.#value, 3)),
      () =>
        exact(
          this.#pick(['CLIENT', 'CONFIG', 'COMMAND']),
          this.#pick(['nonsense', 'x\r\ny', 'z'.repeat(200)]),
        ),
      () => exact('CLIENT', 'SETNAME', this.#pick(['me', 'a b', '', '\xff'])),
      () => exact('CLIENT', 'GETNAME'),
      () => exact('SELECT', this.#pick(['0', 'abc', '-1', '99', '9999999999999999999'])),
      () =>
        exact(
          'COMMAND',
          'GETKEYS',
          ...this.#pick([
            ['GET', 'k'],
            ['MSET', 'a', '1', 'b', '2'],
            ['PING'],
            ['zz'],
            ['GET'],
            ['del', 'x', 'y'],
          ]),
        ),
      () => exact('MULTI'),
      () => other('any order', 'EXEC'),
      () => other('any order', 'EXEC'),
      () => exact('DISCARD'),
    ];
    for (;;) {
      const sent = this.#pick(kinds)();
      // In a transaction, replies come in one: only what is certain may be in it; and the door refuses a few there.
      if (!this.#inMulti || sent.compare === 'equal' || sent.args[0] === 'EXEC') {
        if (!this.#inMulti || sent.args[0] !== 'DBSIZE') return sent;
      }
    }
  }

  /** Now and then an argument too few or too many, or other letters. */
  #spoil(sent: Sent): Sent {
    const name = sent.args[0] as string;
    const chance = this.#random();
    if (chance < 0.1) return { ...sent, args: [name.toLowerCase(), ...sent.args.slice(1)] };
    if (chance > 0.15 || name === 'SPOP' || name === 'COMMAND') return sent;
    const compare = name === 'SCAN' ? 'errors only' : sent.compare;
    if (chance < 0.125 && sent.args.length > 1) return { args: sent.args.slice(0, -1), compare };
    return { args: [...sent.args, this.#value()], compare };
  }
}

const sorted = (reply: string): string => [...reply].sort().join('');
const isError = (reply: string): boolean => reply.startsWith('-');

function same(compare: Comparison, ours: string, theirs: string): boolean {
  if (ours === theirs) return true;
  switch (compare) {
    case 'any order':
      return !isError(ours) && !isError(theirs) && sorted(ours) === sorted(theirs);
    case 'same length':
      // A random member may be of any length: the kind of reply and the number of members are compared.
      return (
        !isError(ours) &&
        !isError(theirs) &&
        /^(\*\d+|\$)/.exec(ours)?.[0] === /^(\*\d+|\$)/.exec(theirs)?.[0]
      );
    case 'about the same time': {
      const [a, b] = [Number(ours.slice(1)), Number(theirs.slice(1))];
      return a > 0 && b > 0 && Math.abs(a - b) <= (Math.max(a, b) > 1e5 ? 5000 : 5);
    }
    case 'errors only':
      return !isError(ours) && !isError(theirs);
    default:
      return false;
  }
}

const BATCH = 25;

/** Runs `commands` commands of each seed on both, one seed in RESP2 and the next in RESP3. */
export function respDifferential(
  name: string,
  makeEngine: () => Promise<EngineUnderTest>,
  { seeds = [1, 2, 3, 4], commands = 1500 }: { seeds?: readonly number[]; commands?: number } = {},
): void {
  describe(`${name}: the front door beside valkey-server`, () => {
    let server: LaunchedValkey;
    before(async () => {
      server = await launchValkey();
    });
    after(() => server.stop());

    for (const seed of seeds) {
      it(`gives the same replies to ${commands} random commands (seed ${seed})`, async () => {
        const subject = await makeEngine();
        const door = await startFrontDoor({ engine: subject.engine, port: 0, logger: silentLogger });
        const [us, them] = await Promise.all([RawClient.connect(door.port), RawClient.connect(server.port)]);
        try {
          assert.equal(await them.call('FLUSHALL'), '+OK\r\n');
          if (seed % 2 === 0) await Promise.all([us.call('HELLO', '3'), them.call('HELLO', '3')]);
          const source = new CommandSource(seed);
          const recent: string[] = [];
          for (let done = 0; done < commands; done += BATCH) {
            const batch = Array.from({ length: BATCH }, () => source.next());
            const bytes = Buffer.concat(batch.map(({ args }) => encode(...args)));
            us.write(bytes);
            them.write(bytes);
            const [ours, theirs] = await Promise.all([us.replies(BATCH), them.replies(BATCH)]);
            for (const [i, { args, compare }] of batch.entries()) {
              const [a, b] = [ours[i] as string, theirs[i] as string];
              recent.push(`${JSON.stringify(args)} → ${JSON.stringify(b)}`);
              if (same(compare, a, b)) continue;
              assert.fail(
                `seed ${seed}, command ${done + i}: ${JSON.stringify(args)}\nours:   ${JSON.stringify(a)}\ntheirs: ${JSON.stringify(b)}\nbefore:\n${recent.slice(-15).join('\n')}`,
              );
            }
          }
        } finally {
          us.close();
          them.close();
          await door.stop();
          await subject.stop();
        }
      });
    }
  });
}
