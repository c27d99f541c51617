/** A client that shows replies as the bytes they are. */
import { Buffer } from 'node:buffer';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** Encodes a command as an array of bulk strings; one character per byte. */
export function encode(...args: readonly string[]): Buffer {
  const parts = [`*${args.length}\r\n`];
  for (const arg of args) parts.push(`$${arg.length}\r\n${arg}\r\n`);
  return Buffer.from(parts.join(''), 'latin1');
}

/** Gives the end of the reply that starts at `at`, or -1 when it isn't complete. */
export function replyEnd(bytes: Buffer, at: number): number {
  const line = bytes.indexOf('\r\n', at, 'latin1');
  if (line === -1) return -1;
  const count = Number(bytes.toString('latin1', at + 1, line));
  const type = String.fromCharCode(bytes[at] as number);
  let end = line + 2;
  if (type === '$' || type === '=') {
    if (count >= 0) end += count + 2;
    return end <= bytes.length ? end : -1;
  }
  const elements = type === '*' || type === '~' || type === '>' ? count : type === '%' ? count * 2 : 0;
  for (let i = 0; i < elements; i += 1) {
    end = replyEnd(bytes, end);
    if (end === -1) return -1;
  }
  return end;
}

/** One raw connection. Replies wait in order; nothing is waited for longer than the deadline. */
export class RawClient {
  readonly socket: Socket;
  /** Bytes of replies that came after the connection was closed by the other side are still here. */
  closed = false;
  readonly #deadlineMs: number;
  #chunks: Buffer[] = [];
  #buffered: Buffer = Buffer.alloc(0);
  #wake: (() => void) | null = null;

  private constructor(socket: Socket, deadlineMs: number) {
    this.socket = socket;
    this.#deadlineMs = deadlineMs;
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#wake?.();
    });
    const over = (): void => {
      this.closed = true;
      this.#wake?.();
    };
    socket.on('error', over);
    socket.on('end', over);
    socket.on('close', over);
  }

  static async connect(port: number, deadlineMs = 20_000): Promise<RawClient> {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.setNoDelay(true);
    await once(socket, 'connect');
    return new RawClient(socket, deadlineMs);
  }

  send(...args: readonly string[]): void {
    this.socket.write(encode(...args));
  }

  write(bytes: Buffer | string): void {
    this.socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
  }

  /** Sends a command and gives its reply. */
  async call(...args: readonly string[]): Promise<string> {
    this.send(...args);
    return this.reply();
  }

  /** The next reply, one character per byte. */
  async reply(): Promise<string> {
    for (;;) {
      this.#gather();
      const end = this.#buffered.length === 0 ? -1 : replyEnd(this.#buffered, 0);
      if (end !== -1) {
        const reply = this.#buffered.toString('latin1', 0, end);
        this.#buffered = this.#buffered.subarray(end);
        return reply;
      }
      if (this.closed) throw new Error(`closed after ${JSON.stringify(this.#buffered.toString('latin1'))}`);
      await this.#more();
    }
  }

  async replies(count: number): Promise<string[]> {
    const all: string[] = [];
    while (all.length < count) all.push(await this.reply());
    return all;
  }

  /** Everything until the other side closes. */
  async rest(): Promise<string> {
    while (!this.closed) {
      this.#gather();
      await this.#more();
    }
    this.#gather();
    return this.#buffered.toString('latin1');
  }

  close(): void {
    this.socket.destroy();
  }

  #gather(): void {
    if (this.#chunks.length === 0) return;
    this.#buffered = Buffer.concat([this.#buffered, ...this.#chunks.splice(0)]);
  }

  async #more(): Promise<void> {
    if (this.#chunks.length > 0 || this.closed) return;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('no reply within the deadline')), this.#deadlineMs);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = null;
        resolve();
      };
    });
  }
}
