/** Waits until a number of other regions have applied a frame: each member is asked to say when it has. */
import { setMaxListeners } from 'node:events';
import type { ReplicaId } from '../../crdts/dot.js';
import type { Mesh } from '../mesh/mesh.js';
import type { Timers } from '../timers.js';
import type { Member, Members } from './members.js';
import { decodeFramesRequest, encodeAppliedRequest, PROTOCOLS } from './messages.js';

export interface WaitOptions {
  readonly mesh: Mesh;
  readonly members: Members;
  readonly timers: Timers;
  /** Says whether a member belongs to this node's own region. */
  readonly isOwnRegion: (member: Member) => boolean;
  readonly replica: ReplicaId;
  readonly number: number;
  readonly regions: number;
  /** 0 = no limit. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** One question lasts at most this long; then it is asked again, so that a lost answer delays nothing for ever. */
const ASK_MS = 5_000;
/** How often the members are looked at again: some may have come, or come back. */
const LOOK_MS = 50;

/** Gives the number of regions that have applied the frame when enough have, the time is over, or the signal aborts. */
export async function waitForRegions(options: WaitOptions): Promise<number> {
  const { mesh, members, timers, isOwnRegion, replica, number, regions, timeoutMs, signal } = options;
  const reached = new Set<string>();
  const asking = new Set<string>();
  const over = new AbortController();
  setMaxListeners(0, over.signal);
  let wake = (): void => {};
  const stop = (): void => over.abort();
  signal?.addEventListener('abort', stop);
  if (signal?.aborted === true) stop();
  const cancel = timeoutMs > 0 ? timers.after(timeoutMs, stop) : () => {};

  /** Says whether that brought anything: who is unreachable says no at once, and must not be asked again at once. */
  const ask = async (peerId: string, region: string): Promise<boolean> => {
    asking.add(peerId);
    try {
      const body = encodeAppliedRequest({ replica, number, timeoutMs: ASK_MS });
      for await (const answer of mesh.request(peerId, PROTOCOLS.applied, body, {
        signal: over.signal,
        timeoutMs: 2 * ASK_MS,
      })) {
        if (decodeFramesRequest(answer).to >= number) reached.add(region);
      }
    } catch {
      // Unreachable now; it is asked again when it is back.
    } finally {
      asking.delete(peerId);
    }
    return reached.has(region);
  };

  try {
    for (;;) {
      for (const member of members.present()) {
        if (isOwnRegion(member) || reached.has(member.region)) continue;
        if ((member.applied.get(replica) ?? 0) >= number) reached.add(member.region);
        else if (!asking.has(member.peerId))
          void ask(member.peerId, member.region).then((answered) => {
            if (answered) wake();
          });
      }
      if (reached.size >= regions || over.signal.aborted) return reached.size;
      await new Promise<void>((resolve) => {
        const cancelLook = timers.after(LOOK_MS, done);
        function done(): void {
          cancelLook();
          over.signal.removeEventListener('abort', done);
          wake = () => {};
          resolve();
        }
        wake = done;
        over.signal.addEventListener('abort', done);
      });
    }
  } finally {
    cancel();
    signal?.removeEventListener('abort', stop);
    over.abort();
  }
}
