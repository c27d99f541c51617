/** The request parser, alone: any split of any stream gives the same commands, and hostile streams are refused cheaply. */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ProtocolError } from '../src/resp/errors.js';
import { type ParserLimits, RequestParser } from '../src/resp/parser.js';
import { encode } from './support/resp-client.js';

const LIMITS: ParserLimits = { maxBulkBytes: 1024 * 1024 };

/** Everything that a stream holds: commands, then the error that ended it, if one did. */
function parse(chunks: readonly Buffer[], limits = LIMITS, trusted = true): (readonly string[] | string)[] {
  const parser = new RequestParser(limits, trusted);
  const found: (readonly string[] | string)[] = [];
  for (const chunk of chunks) {
    parser.push(Buffer.from(chunk));
    try {
      for (let args = parser.next(); args !== null; args = parser.next()) found.push(args);
    } catch (error) {
      assert.ok(error instanceof ProtocolError, String(error));
      found.push(error.message);
      return found;
    }
  }
  return found;
}

function split(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  const pieces: Buffer[] = [];
  let from = 0;
  for (const place of [...places, bytes.length]) {
    pieces.push(bytes.subarray(from, place));
    from = place;
  }
  return pieces.filter((piece) => piece.length > 0);
}

const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1');
const argument = fc.oneof(
  fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
  fc.constantFrom('', '\r\n', '$3\r\n', '*1\r\n', 'GET', 'x'.repeat(3000)),
);
const stream = fc
  .array(
    fc.oneof(
      fc.array(argument, { minLength: 1, maxLength: 6 }).map((args) => encode(...args)),
      fc
        .constantFrom('PING\r\n', 'SET a "b c"\n', '\r\n', '*0\r\n', '*-1\r\n', "GET 'it\\'s'\r\n")
        .map(latin1),
    ),
    { maxLength: 12 },
  )
  .map((parts) => Buffer.concat(parts));
const noise = fc
  .array(
    fc.constantFrom(
      '*',
      '$',
      '\r',
      '\n',
      '\r\n',
      '1',
      '2',
      '-',
      'a',
      '"',
      "'",
      '\\',
      ' ',
      '\x00',
      '*2\r\n$1\r\n',
    ),
    {
      maxLength: 60,
    },
  )
  .map((parts) => latin1(parts.join('')));

describe('the request parser', () => {
  it('gives the same commands however the stream is cut', () => {
    fc.assert(
      fc.property(stream, fc.array(fc.nat(), { maxLength: 30 }), (bytes, cuts) => {
        assert.deepEqual(parse(split(bytes, cuts)), parse([bytes]));
      }),
      { numRuns: 500 },
    );
  });

  it('gives the same commands byte by byte', () => {
    fc.assert(
      fc.property(stream, (bytes) => {
        const single = Array.from(bytes, (byte) => Buffer.from([byte]));
        assert.deepEqual(parse(single), parse([bytes]));
      }),
      { numRuns: 50 },
    );
  });

  it('gives the same commands and the same error for noise, however it is cut', () => {
    fc.assert(
      fc.property(noise, fc.array(fc.nat(), { maxLength: 30 }), (bytes, cuts) => {
        assert.deepEqual(parse(split(bytes, cuts)), parse([bytes]));
      }),
      { numRuns: 2000 },
    );
  });

  it('returns what was encoded', () => {
    fc.assert(
      fc.property(fc.array(fc.array(argument, { minLength: 1 }), { maxLength: 10 }), (commands) => {
        assert.deepEqual(parse(commands.map((args) => encode(...args))), commands);
      }),
    );
  });

  // Stream → what valkey-server 8.0.1 makes of it.
  const cases: readonly (readonly [stream: string, found: (readonly string[] | string)[]])[] = [
    ['*-5\r\nPING\r\n', [['PING']]],
    ['*0\r\nPING\r\n', [['PING']]],
    ['\r\n\n   \r\nPING\r\n', [['PING']]],
    ['*1\r\n$4\r\nPINGxxPING\r\n', [['PING'], ['PING']]],
    ['*1\r\n$0\r\n\r\n', [['']]],
    ['set \'a b\' "x\\x41\\n\\q"\r\n', [['set', 'a b', 'xA\nq']]],
    ['PING "a\\x4"\r\n', [['PING', 'ax4']]],
    ["PING 'a\\'b'\r\n", [['PING', "a'b"]]],
    ['PING ""\r\n', [['PING', '']]],
    ['*999999999999\r\n', ['ERR Protocol error: invalid multibulk length']],
    ['*2147483648\r\n', ['ERR Protocol error: invalid multibulk length']],
    ['*abc\r\n', ['ERR Protocol error: invalid multibulk length']],
    ['*\r\n', ['ERR Protocol error: invalid multibulk length']],
    ['*01\r\n', ['ERR Protocol error: invalid multibulk length']],
    ['*+1\r\n', ['ERR Protocol error: invalid multibulk length']],
    ['*1 \r\n', ['ERR Protocol error: invalid multibulk length']],
    ['*1\r\n$-1\r\n', ['ERR Protocol error: invalid bulk length']],
    ['*1\r\n$abc\r\n', ['ERR Protocol error: invalid bulk length']],
    ['*1\r\n$600000000\r\n', ['ERR Protocol error: invalid bulk length']],
    ['*1\r\nPING\r\n', ["ERR Protocol error: expected '$', got 'P'"]],
    ['*1\r\n*1\r\n$4\r\nPING\r\n', ["ERR Protocol error: expected '$', got '*'"]],
    ['PING "a\r\n', ['ERR Protocol error: unbalanced quotes in request']],
    ['PING "a"b\r\n', ['ERR Protocol error: unbalanced quotes in request']],
  ];
  for (const [bytes, found] of cases) {
    it(`makes of ${JSON.stringify(bytes)} what Valkey does`, () => {
      assert.deepEqual(parse([latin1(bytes)]), found);
    });
  }

  it('refuses more arguments than its bound', () => {
    assert.deepEqual(parse([latin1('*1048577\r\n')]), ['ERR Protocol error: invalid multibulk length']);
    assert.deepEqual(parse([latin1('*1048576\r\n')]), []);
  });

  it('refuses lines that never end', () => {
    const long = 'x'.repeat(70_000);
    assert.deepEqual(parse([latin1(long)]), ['ERR Protocol error: too big inline request']);
    assert.deepEqual(parse([latin1(`*${'1'.repeat(70_000)}`)]), [
      'ERR Protocol error: too big mbulk count string',
    ]);
    assert.deepEqual(parse([latin1(`*1\r\n$${'1'.repeat(70_000)}`)]), [
      'ERR Protocol error: too big bulk count string',
    ]);
  });

  it('refuses a command that is longer in all than its bound, although no argument is', () => {
    const limits = { maxBulkBytes: 1000, maxRequestBytes: 5000 };
    const found = parse(
      [latin1('*100\r\n'), ...Array.from({ length: 10 }, () => latin1(`$1000\r\n${'x'.repeat(1000)}\r\n`))],
      limits,
    );
    assert.deepEqual(found, ['ERR Protocol error: request is longer than 5000 bytes']);
  });

  it('lets those who have not authenticated send little', () => {
    assert.deepEqual(parse([latin1('*11\r\n')], LIMITS, false), [
      'ERR Protocol error: unauthenticated multibulk length',
    ]);
    assert.deepEqual(parse([latin1('*1\r\n$16385\r\n')], LIMITS, false), [
      'ERR Protocol error: unauthenticated bulk length',
    ]);
    assert.deepEqual(parse([encode('AUTH', 'x'.repeat(16_384))], LIMITS, false).length, 1);
  });

  it('sets nothing aside for what is only announced', () => {
    const before = process.memoryUsage().arrayBuffers;
    const parsers = Array.from({ length: 200 }, () => {
      const parser = new RequestParser({ maxBulkBytes: 512 * 1024 * 1024 });
      parser.push(latin1('*1000000\r\n$500000000\r\nabc'));
      assert.equal(parser.next(), null);
      return parser;
    });
    const grown = process.memoryUsage().arrayBuffers - before;
    assert.ok(grown < 4 * 1024 * 1024, `200 announcements took ${grown} bytes`);
    assert.equal(parsers[0]?.unread, 3);
  });

  it('copies a large argument that comes in many pieces a bounded number of times', () => {
    const size = 8 * 1024 * 1024;
    const parser = new RequestParser({ maxBulkBytes: size });
    const piece = Buffer.alloc(1000, 'x');
    let copied = 0;
    const { copy } = Buffer.prototype;
    // Counts what the parser moves about: more than a few times its input would be quadratic.
    Buffer.prototype.copy = function counted(this: Buffer, ...args: Parameters<typeof copy>): number {
      const bytes = copy.apply(this, args);
      copied += bytes;
      return bytes;
    };
    try {
      parser.push(latin1(`*2\r\n$3\r\nSET\r\n$${size}\r\n`));
      for (let sent = 0; sent < size; sent += piece.length) {
        assert.equal(parser.next(), null);
        parser.push(piece.subarray(0, Math.min(piece.length, size - sent)));
      }
      parser.push(latin1('\r\n'));
      assert.equal(parser.next()?.[1]?.length, size);
    } finally {
      Buffer.prototype.copy = copy;
    }
    assert.ok(copied < 4 * size, `${copied} bytes were copied for ${size}`);
  });
});
