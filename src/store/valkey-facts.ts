/** Reads what the hash of facts says. */
import type { ByteString } from '../../crdts/bytes.js';
import { META } from './layout.js';
import type { AppliedMark, StoredIdentity } from './store.js';
import { cleanMark } from './valkey-handshake.js';
import type { ServerInfo } from './valkey-health.js';

/** The identity that is stored; null = none. */
export function identityOf(facts: ReadonlyMap<string, ByteString>, info: ServerInfo): StoredIdentity | null {
  const peerId = facts.get(META.peerId);
  const replica = facts.get(META.replica);
  if (peerId === undefined || replica === undefined) return null;
  const clean = facts.get(META.clean) === cleanMark({ peerId, replica, clean: true }, info);
  return { peerId, replica, clean };
}

/** The applied vector that is stored. */
export function appliedOf(facts: ReadonlyMap<string, ByteString>): AppliedMark[] {
  const marks: AppliedMark[] = [];
  for (const [field, value] of facts) {
    if (!field.startsWith(META.appliedPrefix)) continue;
    const [number, stamp] = value.split(' ').map(Number);
    if (number === undefined || stamp === undefined) continue;
    marks.push({ replica: field.slice(META.appliedPrefix.length), number, stamp });
  }
  return marks;
}
