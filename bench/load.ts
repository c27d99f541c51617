/** Load over RESP for benchmarks of whole servers: as little work on this side as possible, and every reply is counted. */
import { readFileSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';

const OK_BYTES = 5; // +OK\r\n

const keyOf = (i: number): string => `k${String(i).padStart(11, '0')}`;
const textOf = (i: number, turn: number): string => `${i}:${turn}:`.padEnd(64, 'v');

function command(...args: readonly string[]): string {
  return `*${args.length}\r\n${args.map((arg) => `$${arg.length}\r\n${arg}\r\n`).join('')}`;
}

async function open(port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('error', reject);
  });
  socket.on('error', () => {});
  return socket;
}

/** Sends one command on a connection of its own; gives the raw reply without its last line's end. */
export async function ask(port: number, ...args: readonly string[]): Promise<string> {
  const socket = await open(port);
  try {
    // QUIT after it: the end of the connection is the end of the reply.
    socket.end(command(...args) + command('QUIT'));
    let reply = '';
    for await (const chunk of socket) reply += (chunk as Buffer).toString('latin1');
    return reply.slice(0, -OK_BYTES).trimEnd();
  } finally {
    socket.destroy();
  }
}

/** SETs that are sent one after another; throws when a reply is no OK. */
class Sets {
  readonly #socket: Socket;
  #acked = 0;
  #sent = 0;
  #wake: () => void = () => {};
  #failure: Error | null = null;

  constructor(socket: Socket) {
    this.#socket = socket;
    let bytes = 0;
    socket.on('data', (chunk: Buffer) => {
      if (chunk.includes(0x2d)) this.#fail(`a SET was refused: ${chunk.toString('latin1').slice(0, 200)}`);
      bytes += chunk.length;
      this.#acked = Math.floor(bytes / OK_BYTES);
      this.#wake();
    });
    socket.on('close', () => this.#fail('the connection was closed'));
  }

  get acked(): number {
    return this.#acked;
  }

  send(sets: readonly (readonly [string, string])[]): void {
    this.#sent += sets.length;
    this.#socket.write(sets.map(([key, value]) => command('SET', key, value)).join(''), 'latin1');
  }

  /** Waits until at most `open` are unanswered. */
  async drained(open: number): Promise<void> {
    while (this.#sent - this.#acked > open) {
      if (this.#failure !== null) throw this.#failure;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  #fail(message: string): void {
    this.#failure ??= new Error(message);
    this.#wake();
  }
}

/** Writes `count` keys. */
export async function fill(port: number, count: number): Promise<void> {
  const socket = await open(port);
  try {
    const sets = new Sets(socket);
    for (let i = 0; i < count; i += 500) {
      sets.send(Array.from({ length: Math.min(500, count - i) }, (_, j) => [keyOf(i + j), textOf(i + j, 0)]));
      await sets.drained(2_000);
    }
    await sets.drained(0);
  } finally {
    socket.destroy();
  }
}

/** Writes at a steady rate until it is stopped: four of five to keys that are there, one to a new one. */
export class Writer {
  readonly #port: number;
  readonly #perSecond: number;
  readonly #keys: number;
  readonly #id: number;
  #socket: Socket | null = null;
  #sets: Sets | null = null;
  #timer: NodeJS.Timeout | undefined;
  #count = 0;

  constructor(port: number, perSecond: number, keys: number, id: number) {
    this.#port = port;
    this.#perSecond = perSecond;
    this.#keys = keys;
    this.#id = id;
  }

  async start(): Promise<void> {
    this.#socket = await open(this.#port);
    this.#sets = new Sets(this.#socket);
    const began = performance.now();
    this.#timer = setInterval(() => {
      const due = Math.floor(((performance.now() - began) / 1000) * this.#perSecond);
      const sets: [string, string][] = [];
      for (; this.#count < due; this.#count += 1) {
        // A step that is prime to any round number of keys: all over them.
        const i = (this.#count * 7_919 + this.#id) % this.#keys;
        const key = this.#count % 5 === 4 ? `new:${this.#id}:${this.#count}` : keyOf(i);
        sets.push([key, textOf(i, this.#count)]);
      }
      if (sets.length > 0) this.#sets!.send(sets);
    }, 10);
  }

  /** Ends when every write has been acknowledged; gives their number. */
  async stop(): Promise<number> {
    clearInterval(this.#timer);
    await this.#sets?.drained(0);
    return this.#count;
  }

  close(): void {
    clearInterval(this.#timer);
    this.#socket?.destroy();
  }
}

/** Waits for a condition. */
export async function until(
  what: string,
  deadlineMs: number,
  condition: () => Promise<boolean>,
): Promise<void> {
  const end = performance.now() + deadlineMs;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`waited ${deadlineMs} ms in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The greatest resident memory of a process so far, or since {@link resetPeak}; null where the system doesn't say. */
export function peakMiB(pid: number): number | null {
  try {
    const found = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return found === null ? null : Number(found[1]) / 1024;
  } catch {
    return null;
  }
}

/** Forgets the peak so far, where the system can. */
export function resetPeak(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/clear_refs`, '5');
  } catch {
    // Then the peak is that of the process's whole life.
  }
}
