/**
 * Requests over libp2p: one direct stream each.
 *
 *     asker     → name length (u16) · body length (u32) · name · body; then keeps its side open until it has the answer
 *     responder → frames of kind (u8) · length (u32) · payload: any number of chunks, then one END or ERROR
 *
 * Numbers are big-endian. Only an END ends an answer: a stream that merely stops was cut. The asker's open side tells
 * the responder that someone is still there; when it closes early, the handler is aborted. Back-pressure is yamux's:
 * the next chunk is pulled from the handler when the window has room for it.
 */
import type { Stream } from '@libp2p/interface';
import { PeerError } from '../errors.js';
import type { Timers } from '../timers.js';
import { ByteReader } from './byte-reader.js';
import type { MeshHandlers, PeerId, RequestOptions } from './mesh.js';

/** The libp2p protocol that carries all requests. */
export const REQUEST_PROTOCOL = '/valkey-mesh/request/1';
/** Longest name of a protocol within it. */
export const MAX_NAME_BYTES = 256;
/** Largest body of a request. */
export const MAX_BODY_BYTES = 4 * 1024 * 1024;
/** Largest chunk of an answer. */
export const MAX_CHUNK_BYTES = 8 * 1024 * 1024;
/** Longest error message that is passed on; the rest is cut off. */
export const MAX_MESSAGE_BYTES = 1024;
/** Requests of one peer that are answered at the same time; more are refused with an error. */
export const MAX_REQUESTS_PER_PEER = 32;
/** Default of `RequestOptions.timeoutMs`. */
const DEFAULT_TIMEOUT_MS = 10_000;
/** An asker must have sent its request within this time. */
const RECEIVE_TIMEOUT_MS = 10_000;
/** An asker that takes nothing for this long is given up. */
const STALL_TIMEOUT_MS = 120_000;
/** A finished stream may take this long to close before it is cut off. */
const CLOSE_TIMEOUT_MS = 5_000;

const CHUNK = 0;
const END = 1;
const ERROR = 2;
const utf8 = new TextEncoder();

/** What both sides need to know of the exchange. */
interface Exchange {
  readonly peer: PeerId;
  readonly timers: Timers;
  /** Aborts when the mesh stops. */
  readonly ended: AbortSignal;
}

/** Asks one peer, over the stream that `open` opens. Throws PeerError for whatever goes wrong. */
export async function* ask(
  exchange: Exchange,
  open: (signal: AbortSignal) => Promise<Stream>,
  protocol: string,
  body: Uint8Array,
  options: RequestOptions,
): AsyncGenerator<Uint8Array> {
  const { peer, timers, ended } = exchange;
  const { signal, timeoutMs = DEFAULT_TIMEOUT_MS } = options;
  const request = encodeRequest(protocol, body);
  const aborting = new AbortController();
  let failure: PeerError | undefined;
  let stream: Stream | undefined;
  let complete = false;
  let letGo = () => {};
  const done = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const fail = (message: string) => {
    failure ??= new PeerError(message);
    aborting.abort(failure);
    stream?.abort(failure);
  };
  const onAbort = () => fail(`the request ${protocol} to ${peer} was aborted`);
  const onEnd = () => fail(`the connection to ${peer} was closed during ${protocol}`);
  const arm = () =>
    timers.after(timeoutMs, () => fail(`${peer} did not answer ${protocol} within ${timeoutMs} ms`));
  let disarm = arm();
  signal?.addEventListener('abort', onAbort);
  ended.addEventListener('abort', onEnd);
  try {
    if (signal?.aborted === true) onAbort();
    if (ended.aborted) onEnd();
    if (failure !== undefined) throw failure;
    stream = await open(aborting.signal);
    if (failure !== undefined) throw failure;
    // A failure to send shows as a failure to read.
    stream.sink(sendUntil(request, done)).catch(() => {});
    const reader = new ByteReader(stream.source);
    for (;;) {
      const { kind, payload } = await readFrame(reader);
      disarm();
      if (failure !== undefined) throw failure;
      complete = kind !== CHUNK;
      if (kind === END) return;
      if (kind === ERROR) throw new PeerError(new TextDecoder().decode(payload));
      yield payload;
      if (failure !== undefined) throw failure;
      disarm = arm();
    }
  } catch (error) {
    if (failure !== undefined) throw failure;
    if (error instanceof PeerError) throw error;
    throw new PeerError(`the request ${protocol} to ${peer} broke off`, { cause: error });
  } finally {
    disarm();
    signal?.removeEventListener('abort', onAbort);
    ended.removeEventListener('abort', onEnd);
    if (complete) closeSoon(stream!);
    else stream?.abort(new Error('the asker went away'));
    letGo();
  }
}

/** Answers the request that comes in on a stream. Never throws: what goes wrong is told to the asker or ends the stream. */
export async function answer(
  exchange: Exchange,
  stream: Stream,
  onRequest: MeshHandlers['onRequest'],
): Promise<void> {
  const { peer, timers, ended } = exchange;
  const aborting = new AbortController();
  const gone = new Promise<never>((_resolve, reject) => {
    aborting.signal.addEventListener('abort', () => reject(new Error('the asker went away')));
  });
  gone.catch(() => {});
  let frames: AsyncGenerator<Uint8Array> | undefined;
  let finished = false;
  const onEnd = () => {
    aborting.abort();
    stream.abort(new Error('the mesh has let this peer go'));
  };
  ended.addEventListener('abort', onEnd);
  const tooLate = timers.after(RECEIVE_TIMEOUT_MS, () => stream.abort(new Error('no request came')));
  try {
    if (ended.aborted) throw new Error('the mesh has let this peer go');
    const reader = new ByteReader(stream.source);
    const request = await readRequest(reader);
    tooLate();
    reader.rest().then(() => {
      if (finished) return;
      aborting.abort();
      stream.abort(new Error('the asker went away'));
    });
    const chunks =
      typeof request === 'string'
        ? failing(request)
        : startAnswer(() => onRequest(peer, request.protocol, request.body, aborting.signal));
    const onStall = () => stream.abort(new Error('the asker takes nothing'));
    frames = responseFrames(chunks, aborting, () => timers.after(STALL_TIMEOUT_MS, onStall));
    // The sink of a stream that was reset may never return (it-byte-stream waits for a reader that is gone).
    await Promise.race([stream.sink(frames), gone]);
    finished = true;
    await stream.close({ signal: AbortSignal.timeout(CLOSE_TIMEOUT_MS) });
  } catch (error) {
    stream.abort(error instanceof Error ? error : new Error(String(error)));
  } finally {
    tooLate();
    if (!finished) aborting.abort();
    frames?.return(undefined).catch(() => {});
    ended.removeEventListener('abort', onEnd);
  }
}

function startAnswer(start: () => AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  try {
    return start();
  } catch (error) {
    return failing(messageOf(error));
  }
}

function failing(message: string): AsyncIterable<Uint8Array> {
  return { [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(new PeerError(message)) }) };
}

/** Turns a handler's chunks into frames, one at a time; closes the handler when nobody takes them any more. */
async function* responseFrames(
  chunks: AsyncIterable<Uint8Array>,
  aborting: AbortController,
  armStall: () => () => void,
): AsyncGenerator<Uint8Array> {
  const iterator = chunks[Symbol.asyncIterator]();
  let open = true;
  let disarm = () => {};
  const { signal } = aborting;
  const aborted = new Promise<undefined>((resolve) => {
    signal.addEventListener('abort', () => resolve(undefined), { once: true });
    if (signal.aborted) resolve(undefined);
  });
  try {
    for (;;) {
      let frame: Uint8Array;
      try {
        const step = await Promise.race([iterator.next(), aborted]);
        if (step === undefined) return;
        open = step.done !== true;
        if (open && step.value.byteLength > MAX_CHUNK_BYTES) {
          throw new PeerError(
            `a chunk of ${step.value.byteLength} bytes is over the limit of ${MAX_CHUNK_BYTES}`,
          );
        }
        frame = open ? encodeFrame(CHUNK, step.value) : encodeFrame(END, new Uint8Array(0));
      } catch (error) {
        open = false;
        frame = encodeFrame(ERROR, utf8.encode(messageOf(error)).subarray(0, MAX_MESSAGE_BYTES));
        iterator.return?.()?.then(undefined, () => {});
      }
      disarm = armStall();
      yield frame;
      disarm();
      if (!open) return;
    }
  } finally {
    disarm();
    if (open) {
      aborting.abort();
      // A handler that is busy takes the return when its current step is over; what it throws then concerns nobody.
      iterator.return?.()?.then(undefined, () => {});
    }
  }
}

function closeSoon(stream: Stream): void {
  stream
    .close({ signal: AbortSignal.timeout(CLOSE_TIMEOUT_MS) })
    .catch((error: Error) => stream.abort(error));
}

async function* sendUntil(bytes: Uint8Array, done: Promise<void>): AsyncGenerator<Uint8Array> {
  yield bytes;
  await done;
}

function encodeRequest(protocol: string, body: Uint8Array): Uint8Array {
  const name = utf8.encode(protocol);
  if (name.byteLength > MAX_NAME_BYTES || body.byteLength > MAX_BODY_BYTES) {
    const what =
      name.byteLength > MAX_NAME_BYTES ? `name of ${name.byteLength}` : `body of ${body.byteLength}`;
    const limit = name.byteLength > MAX_NAME_BYTES ? MAX_NAME_BYTES : MAX_BODY_BYTES;
    throw new PeerError(`a request with a ${what} bytes is over the limit of ${limit}`);
  }
  const bytes = new Uint8Array(6 + name.byteLength + body.byteLength);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, name.byteLength);
  view.setUint32(2, body.byteLength);
  bytes.set(name, 6);
  bytes.set(body, 6 + name.byteLength);
  return bytes;
}

/** Reads a request; a text says why it is refused. Throws when the stream ends first. */
async function readRequest(reader: ByteReader): Promise<{ protocol: string; body: Uint8Array } | string> {
  const header = await readAll(reader, 6);
  const view = new DataView(header.buffer);
  const [nameBytes, bodyBytes] = [view.getUint16(0), view.getUint32(2)];
  if (nameBytes > MAX_NAME_BYTES)
    return `a protocol name of ${nameBytes} bytes is over the limit of ${MAX_NAME_BYTES}`;
  if (bodyBytes > MAX_BODY_BYTES)
    return `a body of ${bodyBytes} bytes is over the limit of ${MAX_BODY_BYTES}`;
  const protocol = new TextDecoder().decode(await readAll(reader, nameBytes));
  return { protocol, body: await readAll(reader, bodyBytes) };
}

function encodeFrame(kind: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(5 + payload.byteLength);
  bytes[0] = kind;
  new DataView(bytes.buffer).setUint32(1, payload.byteLength);
  bytes.set(payload, 5);
  return bytes;
}

async function readFrame(reader: ByteReader): Promise<{ kind: number; payload: Uint8Array }> {
  const header = await readAll(reader, 5);
  const kind = header[0]!;
  const length = new DataView(header.buffer).getUint32(1);
  const limit = kind === CHUNK ? MAX_CHUNK_BYTES : kind === ERROR ? MAX_MESSAGE_BYTES : 0;
  if (kind > ERROR || length > limit)
    throw new PeerError('the peer answers with something that is not the protocol');
  return { kind, payload: await readAll(reader, length) };
}

async function readAll(reader: ByteReader, count: number): Promise<Uint8Array> {
  const bytes = await reader.read(count);
  if (bytes === undefined) throw new Error('the stream ended early');
  return bytes;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
