/**
 * Errors of the data types. Each condition is a class with a stable `code`; codes are part of the public API and
 * pinned by a test, messages are not.
 */

/** Base of every error that valkey-mesh throws on purpose. */
export class MeshError extends Error {
  /** Stable, machine-readable name of the condition; never changes between releases. */
  readonly code: string;

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** Thrown when bytes from outside are not a valid encoding: a peer is broken or hostile, or storage is damaged. */
export class DecodeError extends MeshError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('DECODE', message, options);
  }
}

/** Thrown when an operation fits a key of another type; the state is unchanged. */
export class WrongTypeError extends MeshError {
  constructor() {
    super('WRONGTYPE', 'Operation against a key holding the wrong kind of value');
  }
}

/** Thrown when a counter operation meets a value that is not a 64-bit integer; the state is unchanged. */
export class NotAnIntegerError extends MeshError {
  constructor() {
    super('NOT_AN_INTEGER', 'value is not an integer or out of range');
  }
}

/** Thrown when an increment would leave the signed 64-bit range; the state is unchanged. */
export class OverflowError extends MeshError {
  constructor() {
    super('OVERFLOW', 'increment or decrement would overflow');
  }
}

/** Thrown when INCRBYFLOAT meets a value or a step that is not a number; the state is unchanged. */
export class NotAFloatError extends MeshError {
  constructor() {
    super('NOT_A_FLOAT', 'value is not a valid float');
  }
}

/** Thrown when INCRBYFLOAT meets an infinite value or step; the state is unchanged. */
export class NotFiniteError extends MeshError {
  constructor() {
    super('NOT_FINITE', 'increment would produce NaN or Infinity');
  }
}

/** Thrown when INCRBYFLOAT meets or would make a number that is too great to be kept exactly; the state is unchanged. */
export class FloatRangeError extends MeshError {
  constructor() {
    super('FLOAT_RANGE', 'value is out of the range that is counted exactly, 10^21 with either sign');
  }
}

/** Thrown when a stamp is outside 0 … 2^53-1 or further ahead than the clock's allowed drift. */
export class StampRangeError extends MeshError {
  constructor(message: string) {
    super('STAMP_RANGE', message);
  }
}

/** Thrown when an argument of the library's own API is not of the documented form; nothing was changed. */
export class ArgumentError extends MeshError {
  constructor(message: string) {
    super('ARGUMENT', message);
  }
}

/** Thrown when a state that can't exist is met: a bug here, or memory that was changed from outside. */
export class InvariantError extends MeshError {
  constructor(message: string) {
    super('INVARIANT', message);
  }
}

/** Thrown when an operation doesn't fit the rule that holds for a key (rules.ts); the state is unchanged. */
export class RuleError extends MeshError {
  constructor(message: string) {
    super('RULE', message);
  }
}
