/**
 * Errors of the running node. Every one has a stable `code` (pinned by a test); foreign errors (ioredis, libp2p, node)
 * are converted in the adapters, with the original as `cause`.
 */
import { MeshError } from '../crdts/errors.js';

export {
  ArgumentError,
  DecodeError,
  FloatRangeError,
  InvariantError,
  MeshError,
  NotAFloatError,
  NotAnIntegerError,
  NotFiniteError,
  OverflowError,
  RuleError,
  StampRangeError,
  WrongTypeError,
} from '../crdts/errors.js';

/** Thrown when a configuration value or command-line flag is not usable; the message says which and what to do. */
export class ConfigError extends MeshError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('CONFIG', message, options);
  }
}

/** Thrown when the store can't be reached, or did not answer in time. The outcome of a pending write is unknown. */
export class StoreUnavailableError extends MeshError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('STORE_UNAVAILABLE', message, options);
  }
}

/** Thrown when the store refused a commit for a reason of its own (out of memory, read-only …); nothing was written. */
export class StoreRefusedError extends MeshError {
  /** Valkey's own word for it, such as `OOM`, `READONLY`, `MISCONF`, `BUSY`, `LOADING`; null when it has none. */
  readonly reason: string | null;
  /** Only one of several servers refused it: the same without what is kept there may be let in. */
  readonly inPart: boolean;

  constructor(message: string, options: { cause?: unknown; reason?: string | null; inPart?: boolean } = {}) {
    super('STORE_REFUSED', message, options);
    this.reason = options.reason ?? null;
    this.inPart = options.inPart ?? false;
  }
}

/** Thrown by a commit when stored headers differ from the expected ones; nothing was written: reload and retry. */
export class StaleCommitError extends MeshError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('STALE_COMMIT', message, options);
  }
}

/** Thrown when the store was restarted with other data than it had (or none): a new epoch must begin. */
export class StoreResetError extends MeshError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('STORE_RESET', message, options);
  }
}

/** Thrown when a value, key, batch or queue is over its documented bound; nothing was written. */
export class LimitError extends MeshError {
  constructor(message: string) {
    super('LIMIT', message);
  }
}

/** Thrown when a peer answered with an error, with something that isn't the protocol, or not at all. */
export class PeerError extends MeshError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('PEER', message, options);
  }
}

/** Thrown by calls on a node that is stopping or stopped. */
export class StoppedError extends MeshError {
  constructor() {
    super('STOPPED', 'this node has been stopped');
  }
}

/** Thrown by operations on a node that lacks what the other members have, until it has caught up with them once; the message says how far it is. */
export class LoadingError extends MeshError {
  constructor(message: string) {
    super('LOADING', message);
  }
}
