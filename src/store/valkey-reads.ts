/** Native reads on Valkey: what any client would see, without our own keys. */
import type { ByteString } from '../../crdts/bytes.js';
import { FrameWriter } from './frame-writer.js';
import { isReservedKey, META, META_KEY } from './layout.js';
import { type NativeReads, type NativeType, type ScanOptions, WRONG_TYPE, type WrongType } from './store.js';
import type { ValkeyConnection } from './valkey-connection.js';
import { argument, bytesOf, listOf, numberOf, type Reply } from './valkey-link.js';

/** Most arguments for a command that a script runs: Lua's stack holds about 8,000. */
export const MAX_SCRIPT_ARGUMENTS = 4000;

/** Reads native values over a connection. */
export class ValkeyReads implements NativeReads {
  readonly #connection: ValkeyConnection;
  readonly #frame = new FrameWriter(4096);

  constructor(connection: ValkeyConnection) {
    this.#connection = connection;
  }

  /** Runs reads in one atomic step. */
  async readAll(commands: readonly (readonly ByteString[])[]): Promise<Reply[]> {
    this.#connection.check();
    if (commands.length === 0) return [];
    const reply = await this.#connection.script('read', () => {
      this.#frame.reset();
      this.#frame.array(commands.length);
      for (const command of commands) this.#strings(command);
      return [this.#frame.bytes()];
    });
    return listOf(reply);
  }

  #strings(items: readonly ByteString[]): void {
    this.#frame.array(items.length);
    for (const item of items) this.#frame.string(item);
  }

  async strings(keys: readonly ByteString[]): Promise<(ByteString | null | WrongType)[]> {
    this.#connection.check();
    const [only] = keys;
    if (only === undefined) return [];
    if (keys.length === 1) {
      const reply = await this.#connection.call('GET', [argument(only)], true);
      return [reply === WRONG_TYPE ? WRONG_TYPE : bytesOf(reply)];
    }
    const reply = await this.#connection.script('strings', () => {
      this.#frame.reset();
      this.#strings(keys);
      return [this.#frame.bytes()];
    });
    return listOf(reply).map((value) => (typeof value === 'number' ? WRONG_TYPE : bytesOf(value)));
  }

  async stringLength(key: ByteString): Promise<number | WrongType> {
    const reply = await this.#connection.call('STRLEN', [argument(key)], true);
    return reply === WRONG_TYPE ? reply : numberOf(reply);
  }

  async members(key: ByteString): Promise<ByteString[] | WrongType> {
    const reply = await this.#connection.call('SMEMBERS', [argument(key)], true);
    return reply === WRONG_TYPE ? reply : byteStrings(reply);
  }

  async contains(key: ByteString, members: readonly ByteString[]): Promise<boolean[] | WrongType> {
    this.#connection.check();
    if (members.length === 0) return [];
    const reply = await this.#connection.call('SMISMEMBER', [argument(key), ...members.map(argument)], true);
    return reply === WRONG_TYPE ? reply : listOf(reply).map((flag) => flag === 1);
  }

  async cardinality(key: ByteString): Promise<number | WrongType> {
    const reply = await this.#connection.call('SCARD', [argument(key)], true);
    return reply === WRONG_TYPE ? reply : numberOf(reply);
  }

  async randomMembers(key: ByteString, count: number): Promise<ByteString[] | WrongType> {
    const reply = await this.#connection.call('SRANDMEMBER', [argument(key), String(count)], true);
    return reply === WRONG_TYPE ? reply : byteStrings(reply);
  }

  async types(keys: readonly ByteString[]): Promise<NativeType[]> {
    const replies = await this.readAll(keys.map((key) => ['TYPE' as ByteString, key]));
    return replies.map((reply) => {
      const type: string | null = bytesOf(reply);
      // Types that this mesh doesn't know come from clients that wrote past it.
      return type === 'string' || type === 'set' ? type : 'none';
    });
  }

  async deadlines(keys: readonly ByteString[]): Promise<(number | null | undefined)[]> {
    const replies = await this.readAll(keys.map((key) => ['PEXPIRETIME' as ByteString, key]));
    return replies.map((reply) => {
      const time = numberOf(reply);
      return time === -2 ? undefined : time === -1 ? null : time;
    });
  }

  async scan(cursor: string, options: ScanOptions = {}): Promise<{ cursor: string; keys: ByteString[] }> {
    const args = [
      cursor,
      ...(options.match === undefined ? [] : ['MATCH', argument(options.match)]),
      ...(options.count === undefined ? [] : ['COUNT', String(options.count)]),
      ...(options.type === undefined ? [] : ['TYPE', options.type]),
    ];
    const reply = listOf((await this.#connection.call('SCAN', args)) as Reply);
    return {
      cursor: bytesOf(reply[0]) ?? '0',
      keys: byteStrings(reply[1]).filter((key) => !isReservedKey(key)),
    };
  }

  async count(): Promise<number> {
    const commands = [['DBSIZE'], ['HGET', META_KEY, META.reserved]] as ByteString[][];
    const [size, reserved] = await this.readAll(commands);
    return numberOf(size) - numberOf(reserved ?? 0);
  }
}

function byteStrings(reply: Reply | undefined): ByteString[] {
  return listOf(reply).map((item) => bytesOf(item) ?? ('' as ByteString));
}
