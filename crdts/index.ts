/** Data types and clocks: pure, deterministic, without IO. Usable on their own, without Valkey and without a mesh. */
export * from './bytes.js';
export * from './counter.js';
export type { DataType } from './data-type.js';
export * from './digest.js';
export * from './dot.js';
export * from './errors.js';
export * from './expiry.js';
export * from './integer.js';
export * from './key-state.js';
export * from './key-wire.js';
export * from './multi-value.js';
export * from './or-set.js';
export * from './register.js';
export * from './stamp.js';
export * from './string-key.js';
export * from './version-vector.js';
export * from './wire.js';
