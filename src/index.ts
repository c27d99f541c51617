/** valkey-mesh: active-active replication for Valkey. The embed API; data types alone are in `valkey-mesh/crdts`. */
export type { ClockStatus, Engine, ForgettingStatus, NodeStatus, PeerStatus } from './engine.js';
export * from './errors.js';
export type { Bytes, CounterHandle, RegisterHandle, SetHandle, SetOptions } from './handles.js';
export { createIdentity, createMeshKey } from './mesh/identity.js';
export { LoopbackNetwork } from './mesh/loopback.js';
export type { Mesh, MeshHandlers, PeerId, RequestOptions } from './mesh/mesh.js';
export {
  type ChangeEvent,
  type ConflictEvent,
  type ConflictWrite,
  createNode,
  type MeshNode,
  type PeerEvent,
} from './node.js';
export type { Logger, NodeOptions } from './options.js';
export type { Store } from './store/store.js';
export type { Cancel, Timers } from './timers.js';
export { systemTimers } from './timers.js';
export type {
  DeepReport,
  DifferingKey,
  Finding,
  FindingKind,
  VerifiedRegion,
  VerifyOptions,
  VerifyReport,
} from './verify/report.js';
