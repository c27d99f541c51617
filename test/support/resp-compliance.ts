/**
 * What a client may expect of the front door, whatever engine stands behind it. The replies are those of valkey-server
 * 8.0.1, byte for byte, except where a comment says otherwise.
 */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { after, before, describe, it } from 'node:test';
import { Redis } from 'ioredis';
import type { Engine } from '../../src/engine.js';
import { silentLogger } from '../../src/options.js';
import { type FrontDoor, startFrontDoor } from '../../src/resp/front-door.js';
import { encode, RawClient } from './resp-client.js';

/** An engine to test, and how to get rid of it. */
export interface EngineUnderTest {
  readonly engine: Engine;
  stop(): Promise<void>;
}

const WRONGTYPE = '-WRONGTYPE Operation against a key holding the wrong kind of value\r\n';
const NOT_INTEGER = '-ERR value is not an integer or out of range\r\n';
const NOT_FLOAT = '-ERR value is not a valid float\r\n';
const SYNTAX = '-ERR syntax error\r\n';
const NIL = '$-1\r\n';
const OK = '+OK\r\n';
const int = (value: number | string): string => `:${value}\r\n`;
const bulk = (value: string): string => `$${value.length}\r\n${value}\r\n`;
const arity = (name: string): string => `-ERR wrong number of arguments for '${name}' command\r\n`;
const expireTime = (name: string): string => `-ERR invalid expire time in '${name}' command\r\n`;

/** Commands and their replies, in order, on one connection and an empty store; `|` parts arguments. */
const TRANSCRIPTS: Readonly<Record<string, readonly (readonly [command: string, reply: string])[]>> = {
  'reads and writes strings': [
    ['GET|t1', NIL],
    ['SET|t1|v', OK],
    ['get|t1', bulk('v')],
    ['STRLEN|t1', int(1)],
    ['APPEND|t1|\x00\r\n\xff', int(5)],
    ['GET|t1', bulk('v\x00\r\n\xff')],
    ['GETSET|t1|w', bulk('v\x00\r\n\xff')],
    ['SETNX|t1|x', int(0)],
    ['SETNX|t2|x', int(1)],
    ['MSET|t3|a|t4|b|t3|c', OK],
    ['MGET|t3|t4|t5|t3', `*4\r\n${bulk('c')}${bulk('b')}${NIL}${bulk('c')}`],
    ['MSETNX|t5|a|t4|b', int(0)],
    ['MSETNX|t5|a|t6|b', int(1)],
    ['GETDEL|t6', bulk('b')],
    ['GETDEL|t6', NIL],
    ['STRLEN|t6', int(0)],
    ['SET|t7|', OK],
    ['GET|t7', bulk('')],
    ['MSET|a', arity('mset')],
    ['MSET|a|b|c', arity('mset')],
    ['MSETNX|a|b|c', arity('msetnx')],
    ['GET', arity('get')],
    ['GET|a|b', arity('get')],
  ],
  'knows every option of SET': [
    ['SET|o|v|XX', NIL],
    ['SET|o|v|XX|GET', NIL],
    ['EXISTS|o', int(0)],
    ['SET|o|v|NX|GET', NIL],
    ['SET|o|w|NX', NIL],
    ['SET|o|w|nx|get', bulk('v')],
    ['GET|o', bulk('v')],
    ['SET|o|w|GET', bulk('v')],
    ['SET|o|w|XX|EX|100', OK],
    ['TTL|o', int(100)],
    ['SET|o|w|KEEPTTL', OK],
    ['TTL|o', int(100)],
    ['SET|o|w', OK],
    ['TTL|o', int(-1)],
    ['SET|o|w|EX|10|EX|20', OK],
    ['TTL|o', int(20)],
    ['SET|o|w|EXAT|4102444800', OK],
    ['EXPIRETIME|o', int(4102444800)],
    ['SET|o|w|PXAT|4102444800123', OK],
    ['PEXPIRETIME|o', int(4102444800123)],
    ['SET|o|w|PXAT|1', OK],
    ['EXISTS|o', int(0)],
    ['SET|o|w|EX', SYNTAX],
    ['SET|o|w|EX|0', expireTime('set')],
    ['SET|o|w|PX|-1', expireTime('set')],
    ['SET|o|w|EX|9223372036854775807', expireTime('set')],
    ['SET|o|w|EX|x', NOT_INTEGER],
    ['SET|o|w|NX|XX', SYNTAX],
    ['SET|o|w|EX|10|PX|10', SYNTAX],
    ['SET|o|w|KEEPTTL|EX|10', SYNTAX],
    ['SET|o|w|PERSIST', SYNTAX],
    ['SADD|os|m', int(1)],
    ['SET|os|v|GET', WRONGTYPE],
    ['SET|os|v|NX', NIL],
    ['SET|os|v', OK],
    ['TYPE|os', '+string\r\n'],
  ],
  'sets expiry with a write, and while reading': [
    ['SETEX|e|100|v', OK],
    ['TTL|e', int(100)],
    ['GETEX|e', bulk('v')],
    ['TTL|e', int(100)],
    ['GETEX|e|PERSIST', bulk('v')],
    ['TTL|e', int(-1)],
    ['GETEX|e|EX|50', bulk('v')],
    ['TTL|e', int(50)],
    ['GETEX|e|PERSIST|EX|1', SYNTAX],
    ['GETEX|e|KEEPTTL', SYNTAX],
    ['GETEX|e|EX|0', expireTime('getex')],
    ['GETEX|none|EX|abc', NIL],
    ['GETEX|e|PXAT|1', bulk('v')],
    ['GET|e', NIL],
    ['PSETEX|e|100000|v', OK],
    ['TTL|e', int(100)],
    ['GETSET|e|w', bulk('v')],
    ['TTL|e', int(-1)],
    ['SETEX|e|0|v', expireTime('setex')],
    ['PSETEX|e|-1|v', expireTime('psetex')],
    ['SETEX|e|abc|v', NOT_INTEGER],
  ],
  counts: [
    ['INCR|c', int(1)],
    ['INCRBY|c|9', int(10)],
    ['DECR|c', int(9)],
    ['DECRBY|c|-1', int(10)],
    ['GET|c', bulk('10')],
    ['SET|c|9223372036854775807', OK],
    ['INCR|c', '-ERR increment or decrement would overflow\r\n'],
    ['GET|c', bulk('9223372036854775807')],
    ['DECRBY|c|-9223372036854775808', '-ERR decrement would overflow\r\n'],
    ['DEL|c', int(1)],
    ['DECRBY|c|9223372036854775807', int('-9223372036854775807')],
    ['INCRBY|c|x', NOT_INTEGER],
    ['INCRBY|c|+1', NOT_INTEGER],
    ['INCRBY|c|01', NOT_INTEGER],
    ['INCRBY|c|', NOT_INTEGER],
    ['INCRBY|c|9223372036854775808', NOT_INTEGER],
    ['SET|c|text', OK],
    ['INCR|c', NOT_INTEGER],
    ['GET|c', bulk('text')],
    ['SET|c| 1', OK],
    ['INCR|c', NOT_INTEGER],
  ],
  fractions: [
    ['INCRBYFLOAT|f|1.1', bulk('1.1')],
    ['INCRBYFLOAT|f|1.90', bulk('3')],
    ['INCR|f', int(4)],
    ['INCRBYFLOAT|f|-.5', bulk('3.5')],
    ['INCR|f', NOT_INTEGER],
    ['GET|f', bulk('3.5')],
    ['INCRBYFLOAT|f|5.0e3', bulk('5003.5')],
    ['INCRBYFLOAT|f|-5003.5', bulk('0')],
    ['INCRBYFLOAT|f|-0', bulk('0')],
    ['INCRBYFLOAT|f|x', NOT_FLOAT],
    ['INCRBYFLOAT|f| 1', NOT_FLOAT],
    ['INCRBYFLOAT|f|1 ', NOT_FLOAT],
    ['INCRBYFLOAT|f|', NOT_FLOAT],
    ['INCRBYFLOAT|f|nan', NOT_FLOAT],
    ['INCRBYFLOAT|f|1e9999', NOT_FLOAT],
    ['INCRBYFLOAT|f|-inf', '-ERR increment would produce NaN or Infinity\r\n'],
    ['INCRBYFLOAT|f', "-ERR wrong number of arguments for 'incrbyfloat' command\r\n"],
    ['GET|f', bulk('0')],
    ['SET|f|3.0|EX|100', OK],
    ['INCRBYFLOAT|f|1.1', bulk('4.1')],
    ['TTL|f', int(100)],
    ['SET|f|text', OK],
    ['INCRBYFLOAT|f|1', NOT_FLOAT],
    ['INCRBYFLOAT|f|inf', NOT_FLOAT],
    ['SADD|fs|m', int(1)],
    ['INCRBYFLOAT|fs|x', '-WRONGTYPE Operation against a key holding the wrong kind of value\r\n'],
  ],
  'keeps sets': [
    ['SADD|s|a|b|a', int(2)],
    ['SADD|s|b', int(0)],
    ['SCARD|s', int(2)],
    ['SISMEMBER|s|a', int(1)],
    ['SISMEMBER|s|z', int(0)],
    ['SMISMEMBER|s|z|a', `*2\r\n${int(0)}${int(1)}`],
    ['SREM|s|a|z|a', int(1)],
    ['SMEMBERS|s', `*1\r\n${bulk('b')}`],
    ['SRANDMEMBER|s', bulk('b')],
    ['SRANDMEMBER|s|5', `*1\r\n${bulk('b')}`],
    ['SRANDMEMBER|s|-3', `*3\r\n${bulk('b').repeat(3)}`],
    ['SRANDMEMBER|s|0', '*0\r\n'],
    ['SRANDMEMBER|none', NIL],
    ['SRANDMEMBER|none|2', '*0\r\n'],
    ['SPOP|s|0', '*0\r\n'],
    ['SPOP|s', bulk('b')],
    ['SPOP|s', NIL],
    ['SPOP|s|2', '*0\r\n'],
    ['EXISTS|s', int(0)],
    ['SPOP|s|-1', '-ERR value is out of range, must be positive\r\n'],
    ['SPOP|s|1|2', SYNTAX],
    ['SRANDMEMBER|s|abc', NOT_INTEGER],
    ['SMEMBERS|s', '*0\r\n'],
    ['SET|str|v', OK],
    ['SADD|str|a', WRONGTYPE],
    ['SREM|str|a', WRONGTYPE],
    ['SCARD|str', WRONGTYPE],
    ['SMEMBERS|str', WRONGTYPE],
    ['SISMEMBER|str|a', WRONGTYPE],
    ['SMISMEMBER|str|a', WRONGTYPE],
    ['SPOP|str', WRONGTYPE],
    ['SPOP|str|0', WRONGTYPE],
    ['SRANDMEMBER|str', WRONGTYPE],
    ['SADD|set|a', int(1)],
    ['GET|set', WRONGTYPE],
    ['INCR|set', WRONGTYPE],
    ['APPEND|set|a', WRONGTYPE],
    ['STRLEN|set', WRONGTYPE],
    ['GETSET|set|a', WRONGTYPE],
    ['GETDEL|set', WRONGTYPE],
    ['GETEX|set', WRONGTYPE],
    ['MGET|str|set', `*2\r\n${bulk('v')}${NIL}`],
  ],
  'finds, deletes and expires keys': [
    ['MSET|k1|a|k2|b', OK],
    ['SADD|k3|m', int(1)],
    ['EXISTS|k1|k1|none|k3', int(3)],
    ['TOUCH|k1|none', int(1)],
    ['TYPE|k1', '+string\r\n'],
    ['TYPE|k3', '+set\r\n'],
    ['TYPE|none', '+none\r\n'],
    ['TTL|none', int(-2)],
    ['PTTL|k1', int(-1)],
    ['EXPIRE|none|10', int(0)],
    ['EXPIRE|k1|100', int(1)],
    ['TTL|k1', int(100)],
    ['EXPIRE|k1|50|GT', int(0)],
    ['EXPIRE|k1|200|GT', int(1)],
    ['EXPIRE|k1|300|LT', int(0)],
    ['EXPIRE|k1|100|XX|LT', int(1)],
    ['EXPIRE|k1|100|NX', int(0)],
    ['EXPIRE|k2|100|XX', int(0)],
    ['EXPIRE|k2|100|GT', int(0)],
    ['EXPIRE|k2|100|LT', int(1)],
    ['PERSIST|k2', int(1)],
    ['PERSIST|k2', int(0)],
    ['PERSIST|none', int(0)],
    ['PEXPIREAT|k3|4102444800123', int(1)],
    ['PEXPIRETIME|k3', int(4102444800123)],
    ['EXPIRETIME|k3', int(4102444800)],
    ['EXPIRE|k3|-1', int(1)],
    ['EXISTS|k3', int(0)],
    ['EXPIREAT|k2|1', int(1)],
    ['EXISTS|k2', int(0)],
    ['EXPIRE|k1|abc', NOT_INTEGER],
    ['EXPIRE|k1|9223372036854775807', expireTime('expire')],
    ['EXPIRE|none|9223372036854775807', expireTime('expire')],
    ['EXPIRE|k1|10|NX|XX', '-ERR NX and XX, GT or LT options at the same time are not compatible\r\n'],
    ['EXPIRE|k1|10|GT|LT', '-ERR GT and LT options at the same time are not compatible\r\n'],
    ['EXPIRE|k1|10|Foo', '-ERR Unsupported option Foo\r\n'],
    ['DBSIZE', int(1)],
    ['KEYS|k?', `*1\r\n${bulk('k1')}`],
    ['KEYS|x*', '*0\r\n'],
    ['SCAN|0|COUNT|1000', `*2\r\n${bulk('0')}*1\r\n${bulk('k1')}`],
    ['SCAN|0|MATCH|x*|COUNT|1000', `*2\r\n${bulk('0')}*0\r\n`],
    ['SCAN|0|TYPE|set|COUNT|1000', `*2\r\n${bulk('0')}*0\r\n`],
    ['SCAN|0|TYPE|hash', `*2\r\n${bulk('0')}*0\r\n`],
    ['SCAN|0|TYPE|foo', "-ERR unknown type name 'foo'\r\n"],
    ['SCAN|abc', '-ERR invalid cursor\r\n'],
    ['SCAN|0|COUNT|0', SYNTAX],
    ['SCAN|0|COUNT|x', NOT_INTEGER],
    ['SCAN|0|MATCH', SYNTAX],
    ['UNLINK|k1|k1|k2', int(1)],
    ['DEL|k1', int(0)],
    ['DBSIZE', int(0)],
  ],
  'runs transactions': [
    ['EXEC', '-ERR EXEC without MULTI\r\n'],
    ['DISCARD', '-ERR DISCARD without MULTI\r\n'],
    ['MULTI', OK],
    ['EXEC', '*0\r\n'],
    ['MULTI', OK],
    ['SET|m|q', '+QUEUED\r\n'],
    ['INCR|m', '+QUEUED\r\n'],
    ['GET|m', '+QUEUED\r\n'],
    ['SADD|ms|a|b', '+QUEUED\r\n'],
    ['SMEMBERS|ms', '+QUEUED\r\n'],
    ['SREM|ms|a', '+QUEUED\r\n'],
    ['SPOP|ms', '+QUEUED\r\n'],
    ['MGET|m|none|ms', '+QUEUED\r\n'],
    ['EXISTS|m|m|ms', '+QUEUED\r\n'],
    ['TTL|m', '+QUEUED\r\n'],
    ['PING', '+QUEUED\r\n'],
    ['SET|m|v|EX|0', '+QUEUED\r\n'],
    [
      'EXEC',
      `*12\r\n${OK}${NOT_INTEGER}${bulk('q')}${int(2)}*2\r\n${bulk('a')}${bulk('b')}${int(1)}${bulk('b')}*3\r\n${bulk('q')}${NIL}${NIL}${int(2)}${int(-1)}+PONG\r\n${expireTime('set')}`,
    ],
    ['MULTI', OK],
    ['MULTI', '-ERR Command not allowed inside a transaction\r\n'],
    ['SET|m|x', '+QUEUED\r\n'],
    ['EXEC', '-EXECABORT Transaction discarded because of previous errors.\r\n'],
    ['MULTI', OK],
    ['GET', arity('get')],
    [
      'EXEC|x',
      "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n",
    ],
    ['EXEC', '-ERR EXEC without MULTI\r\n'],
    ['MULTI', OK],
    ['SET|m|x', '+QUEUED\r\n'],
    ['DISCARD', OK],
    ['GET|m', bulk('q')],
  ],
  'answers what is no command': [
    ['foo', "-ERR unknown command 'foo', with args beginning with: \r\n"],
    ['foo|a|b c', "-ERR unknown command 'foo', with args beginning with: 'a' 'b c' \r\n"],
    ['f\r\no|a\r\nb\x00c', "-ERR unknown command 'f  o', with args beginning with: 'a  b' \r\n"],
    [
      `x|${'y'.repeat(200)}|z`,
      `-ERR unknown command 'x', with args beginning with: '${'y'.repeat(128)}' \r\n`,
    ],
    ['CLIENT', arity('client')],
    ['CLIENT|FOO', "-ERR unknown subcommand 'FOO'. Try CLIENT HELP.\r\n"],
    ['CLIENT|ID|a', arity('client|id')],
    ['client|id|a', arity('client|id')],
    ['SELECT|0', OK],
    ['SELECT|1', '-ERR DB index is out of range\r\n'], // Valkey has 16
    ['SELECT|x', NOT_INTEGER],
    ['PING|a|b', arity('ping')],
    ['PING|hi', bulk('hi')],
    ['ECHO|\x00\xff', bulk('\x00\xff')],
    ['HELLO|4', '-NOPROTO unsupported protocol version\r\n'],
    ['HELLO|x', '-ERR Protocol version is not an integer or out of range\r\n'],
    ['HELLO|3|AUTH|a', "-ERR Syntax error in HELLO option 'AUTH'\r\n"],
    ['HELLO|3|AUTH|u|p', '-WRONGPASS invalid username-password pair or user is disabled.\r\n'],
    ['AUTH|u|p', '-WRONGPASS invalid username-password pair or user is disabled.\r\n'],
    ['AUTH|a|b|c', SYNTAX],
    ['WAIT|abc|0', NOT_INTEGER],
    ['WAIT|0|-1', '-ERR timeout is negative\r\n'],
    ['WAIT|0|abc', '-ERR timeout is not an integer or out of range\r\n'],
    ['COMMAND|GETKEYS|mset|a|b|c|d', `*2\r\n${bulk('a')}${bulk('c')}`],
    ['COMMAND|GETKEYS|ping', '-ERR The command has no key arguments\r\n'],
    ['COMMAND|GETKEYS|foo', '-ERR Invalid command specified\r\n'],
    ['COMMAND|GETKEYS|get', '-ERR Invalid number of arguments specified for command\r\n'],
    ['CONFIG|GET|save', `*2\r\n${bulk('save')}${bulk('')}`],
    ['CONFIG|RESETSTAT', OK],
    ['CLIENT|SETNAME|a b', '-ERR Client names cannot contain spaces, newlines or special characters.\r\n'],
    ['CLIENT|SETNAME|me', OK],
    ['CLIENT|GETNAME', bulk('me')],
    ['RESET', '+RESET\r\n'],
    ['CLIENT|GETNAME', NIL],
  ],
};

/** Runs the whole suite on engines that `makeEngine` gives, each with an empty store. */
export function respCompliance(name: string, makeEngine: () => Promise<EngineUnderTest>): void {
  describe(`${name}: the RESP front door`, () => {
    let subject: EngineUnderTest;
    let door: FrontDoor;

    const reopen = async (): Promise<void> => {
      subject = await makeEngine();
      door = await startFrontDoor({ engine: subject.engine, port: 0, logger: silentLogger });
    };
    const shut = async (): Promise<void> => {
      await door.stop();
      await subject.stop();
    };

    for (const [title, transcript] of Object.entries(TRANSCRIPTS)) {
      it(title, async () => {
        await reopen();
        const client = await RawClient.connect(door.port);
        try {
          for (const [command, expected] of transcript) {
            const reply = await client.call(...command.split('|'));
            // Which member comes first is nobody's promise.
            const sorted = (text: string): string =>
              text.includes('*2\r\n$1\r\n') ? [...text].sort().join('') : text;
            assert.equal(sorted(reply), sorted(expected), command);
          }
        } finally {
          client.close();
          await shut();
        }
      });
    }

    describe('with clients', () => {
      before(reopen);
      after(shut);

      it('shows each connection its own writes, in a pipeline that mixes reads and writes', async () => {
        const client = await RawClient.connect(door.port);
        const commands: Buffer[] = [];
        const expected: string[] = [];
        for (let i = 0; i < 300; i += 1) {
          commands.push(encode('SET', 'mixed', String(i)), encode('GET', 'mixed'), encode('INCR', 'mixed'));
          commands.push(encode('STRLEN', 'mixed'), encode('MGET', 'mixed'), encode('PING'));
          expected.push(OK, bulk(String(i)), int(i + 1), int(String(i + 1).length));
          expected.push(`*1\r\n${bulk(String(i + 1))}`, '+PONG\r\n');
        }
        client.write(Buffer.concat(commands));
        assert.deepEqual(await client.replies(expected.length), expected);
        client.close();
      });

      it('takes 20,000 pipelined writes and answers each in order', async () => {
        const client = await RawClient.connect(door.port);
        const count = 20_000;
        const commands = Array.from({ length: count }, (_, i) =>
          encode('INCRBY', 'pipelined', String(i % 7)),
        );
        client.write(Buffer.concat(commands));
        let sum = 0;
        for (let i = 0; i < count; i += 1) {
          sum += i % 7;
          assert.equal(await client.reply(), int(sum));
        }
        client.close();
      });

      it('loses no increment of connections that count at the same time', async () => {
        const clients = await Promise.all(Array.from({ length: 10 }, () => RawClient.connect(door.port)));
        await Promise.all(
          clients.map(async (client) => {
            for (let i = 0; i < 50; i += 1) client.send('INCR', 'shared');
            await client.replies(50);
          }),
        );
        assert.equal(await (clients[0] as RawClient).call('GET', 'shared'), bulk('500'));
        for (const client of clients) client.close();
      });

      it('pops every member once, however many connections pop', async () => {
        const clients = await Promise.all(Array.from({ length: 5 }, () => RawClient.connect(door.port)));
        const members = Array.from({ length: 200 }, (_, i) => `m${i}`);
        await (clients[0] as RawClient).call('SADD', 'popped', ...members);
        const popped = await Promise.all(
          clients.map(async (client) => {
            const mine: string[] = [];
            for (;;) {
              const reply = await client.call('SPOP', 'popped', '3');
              const found = reply.split('\r\n').filter((line) => line.startsWith('m'));
              if (found.length === 0) return mine;
              mine.push(...found);
            }
          }),
        );
        assert.deepEqual(popped.flat().sort(), [...members].sort());
        assert.equal(await (clients[0] as RawClient).call('EXISTS', 'popped'), int(0));
        for (const client of clients) client.close();
      });

      it('speaks RESP3 when asked, with maps, sets and nulls', async () => {
        const client = await RawClient.connect(door.port);
        client.send('GET', 'none3');
        client.send('HELLO', '3');
        client.send('GET', 'none3');
        assert.equal(await client.reply(), NIL);
        assert.match(await client.reply(), /^%7\r\n\$6\r\nserver\r\n/);
        assert.equal(await client.reply(), '_\r\n');
        assert.equal(await client.call('SADD', 'set3', 'a'), int(1));
        assert.equal(await client.call('SMEMBERS', 'set3'), `~1\r\n${bulk('a')}`);
        assert.equal(await client.call('SRANDMEMBER', 'set3', '1'), `*1\r\n${bulk('a')}`);
        assert.equal(await client.call('SPOP', 'set3', '1'), `~1\r\n${bulk('a')}`);
        assert.equal(
          await client.call('CONFIG', 'GET', 'appendonly'),
          `%1\r\n${bulk('appendonly')}${bulk('no')}`,
        );
        assert.match(await client.call('MESH', 'STATUS'), /^%\d+\r\n\$7\r\nversion\r\n/);
        assert.match(await client.call('INFO', 'server'), /^=\d+\r\ntxt:# Server\r\n/);
        assert.match(await client.call('HELLO', '2'), /^\*14\r\n/);
        assert.equal(await client.call('SMEMBERS', 'set3'), '*0\r\n');
        client.close();
      });

      it('serves ioredis: commands, pipelines, transactions, buffers and scan streams', async () => {
        const redis = new Redis(door.port, '127.0.0.1', { connectionName: 'tester' });
        try {
          assert.equal(await redis.set('io:1', 'grün'), 'OK');
          assert.equal(await redis.get('io:1'), 'grün');
          const bytes = Buffer.from([0, 255, 13, 10, 128]);
          await redis.set('io:2', bytes);
          assert.deepEqual(await redis.getBuffer('io:2'), bytes);
          assert.equal(await redis.sadd('io:3', 'a', 'b'), 2);
          assert.deepEqual((await redis.smembers('io:3')).sort(), ['a', 'b']);
          const replies = await redis.pipeline().incr('io:4').incr('io:4').get('io:4').exec();
          assert.deepEqual(replies, [
            [null, 1],
            [null, 2],
            [null, '2'],
          ]);
          const outcome = await redis.multi().set('io:5', '1').sadd('io:5', 'x').incr('io:5').exec();
          assert.equal(outcome?.[0]?.[1], 'OK');
          assert.match(String(outcome?.[1]?.[0]), /WRONGTYPE/);
          assert.equal(outcome?.[2]?.[1], 2);
          const found = new Set<string>();
          for await (const keys of redis.scanStream({ match: 'io:*', count: 2 })) {
            for (const key of keys as string[]) found.add(key);
          }
          assert.deepEqual([...found].sort(), ['io:1', 'io:2', 'io:3', 'io:4', 'io:5']);
          assert.equal(await redis.client('GETNAME'), 'tester');
          await assert.rejects(redis.call('nope'), /unknown command 'nope'/);
          assert.equal(await redis.quit(), 'OK');
        } finally {
          redis.disconnect();
        }
      });

      it('reports itself in INFO, CLIENT LIST, COMMAND and MESH', async () => {
        const redis = new Redis(door.port, '127.0.0.1');
        try {
          const info = await redis.info();
          for (const section of ['Server', 'Clients', 'Memory', 'Stats', 'Replication', 'Mesh', 'Keyspace']) {
            assert.match(info, new RegExp(`^# ${section}\r$`, 'm'));
          }
          assert.match(info, /^connected_clients:\d+\r$/m);
          assert.equal(await redis.info('nosuch'), '');
          assert.match(
            String(await redis.client('LIST')),
            /^id=\d+ addr=127\.0\.0\.1:\d+ .*cmd=client\|list/m,
          );
          const commands = (await redis.call('COMMAND')) as unknown[];
          assert.equal(await redis.command('COUNT'), commands.length);
          const [get] = (await redis.command('INFO', 'get')) as unknown[][];
          assert.deepEqual(get?.slice(0, 6), ['get', 2, ['readonly', 'fast'], 1, 1, 1]);
          const digest = (await redis.call('MESH', 'DIGEST')) as unknown[];
          assert.equal(digest[0], 'digest');
          assert.match(String(digest[1]), /^[0-9a-f]{12}$/);
          const status = (await redis.call('MESH', 'STATUS')) as unknown[];
          assert.equal(status[status.indexOf('state') + 1], 'ready');
          assert.ok(Array.isArray(await redis.call('MESH', 'PEERS')));
          assert.ok(Array.isArray(await redis.call('MESH', 'HELP')));
          for (const part of ['clock', 'forgetting', 'peers']) assert.ok(status.includes(part), part);
          assert.match(info, /^mesh_clock_offset_ms:-?\d+\r$/m);
          assert.match(info, /^mesh_clock_off:0\r$/m);
          assert.match(info, /^mesh_forgetting_stable_ms:\d+\r$/m);
          assert.match(info, /^mesh_forgetting_waiting_for:\S*\r$/m);
        } finally {
          redis.disconnect();
        }
      });

      it('refuses to forget who is no member, in the middle of a pipeline too', async () => {
        const client = await RawClient.connect(door.port);
        assert.match(
          await client.call('MESH', 'FORGET', '12D3KooWnobody'),
          /^-ERR 12D3KooWnobody is no member: MESH PEERS lists them\r\n$/,
        );
        assert.match(
          await client.call('mesh', 'forget'),
          /^-ERR wrong number of arguments for 'mesh\|forget'/,
        );
        assert.match(await client.call('MESH', 'FORGET', 'a', 'b'), /^-ERR wrong number of arguments/);
        assert.match(
          await client.call('MESH', 'FORGET', 'ü\r\n+OK'),
          /^-ERR [^\r\n]* is no member[^\r\n]*\r\n$/,
        );
        assert.equal(await client.call('PING'), '+PONG\r\n');
        client.close();
      });

      it("refuses the node's own keys, FLUSHALL and CONFIG SET with a reason", async () => {
        const client = await RawClient.connect(door.port);
        assert.match(await client.call('SET', '__mesh:x', 'v'), /^-ERR the key '__mesh:x' is reserved/);
        assert.match(
          await client.call('MSET', 'a', 'b', '__mesh:x', 'v'),
          /^-ERR the key '__mesh:x' is reserved/,
        );
        assert.match(await client.call('GET', '__mesh:x'), /is reserved/);
        assert.match(await client.call('FLUSHALL'), /^-ERR FLUSHALL and FLUSHDB are refused/);
        assert.match(await client.call('CONFIG', 'SET', 'save', ''), /^-ERR CONFIG SET isn't supported/);
        assert.equal(await client.call('GET', 'a'), NIL);
        client.close();
      });

      it('answers an argument over the limit with a protocol error, and closes', async () => {
        const client = await RawClient.connect(door.port);
        client.write(`*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$${subject.engine.maxValueBytes + 1}\r\n`);
        assert.equal(await client.rest(), '-ERR Protocol error: invalid bulk length\r\n');
      });
    });
  });
}
