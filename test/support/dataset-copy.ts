/** Copies of what a memory store holds: backups to fall back to. */
import { MemoryDataset } from '../../src/store/memory-dataset.js';

/** Copies a dataset as it is at a Unix time in milliseconds. */
export function copyDataset(from: MemoryDataset, nowMs: number): MemoryDataset {
  const to = new MemoryDataset();
  for (const [slot, { digest, headers }] of from.slots) {
    to.slots.set(slot, { digest, headers: new Map(headers) });
    for (const key of headers.keys()) {
      const native = from.natives.get(key, nowMs);
      if (native === undefined) continue;
      to.natives.set(key, typeof native.value === 'string' ? native.value : new Set(native.value), nowMs);
      to.natives.expire(key, native.expireAtMs, nowMs);
    }
  }
  for (const [key, entries] of from.entries) to.entries.set(key, new Map(entries));
  for (const [replica, log] of from.logs) to.logs.set(replica, [...log]);
  for (const [replica, mark] of from.applied) to.applied.set(replica, mark);
  to.name = from.name;
  to.dropped = from.dropped;
  for (const [peerId, node] of from.nodes) to.nodes.set(peerId, { ...node });
  to.notes = from.notes;
  return to;
}
