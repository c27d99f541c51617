/**
 * Which server of a cluster serves which slots, as far as its servers have told.
 *
 * All servers that are known are asked at once, and of the answers that come within a moment of the first, the one with the highest epoch
 * counts: a server that was cut off, or that has not heard yet of a slot that moved, tells of before.
 */
import type { ByteString } from '../../crdts/bytes.js';
import { ConfigError } from '../errors.js';
import type { Timers } from '../timers.js';
import { SLOTS } from './slots.js';
import { type HostPort, type Login, type MakeTls, placeLabel } from './valkey-address.js';
import { loginProblem, tlsProblem } from './valkey-errors.js';
import { bytesOf, listOf, numberOf, type Reply, ValkeyLink } from './valkey-link.js';

/** How to reach the servers of a cluster. */
export interface ClusterAccess {
  readonly seeds: readonly HostPort[];
  readonly login: Login;
  readonly tls: MakeTls | null;
  readonly label: string;
  readonly timers: Timers;
  readonly timeoutMs: number;
}

/** How long slower servers are waited for, once one has answered. */
const OTHERS_MS = 100;
/** Servers that are asked at once, at most. */
const MOST_ASKED = 32;
/** Least time between two rounds of asking. */
const PAUSE_MS = 10;

/** What one server told. */
interface Answer {
  readonly epoch: number;
  readonly owners: readonly (HostPort | null)[];
}

/** Connects with one server of the cluster and logs in. The caller closes the link. Throws ConfigError, or the error of a lost connection. */
export async function linkTo(access: ClusterAccess, place: HostPort): Promise<ValkeyLink> {
  const { login, tls, timeoutMs } = access;
  const label = placeLabel(place);
  const link = new ValkeyLink(place, tls?.() ?? null, timeoutMs, () => {});
  const frozen = access.timers.after(timeoutMs, () => link.close());
  try {
    await link.connect();
    const { username, password } = login;
    if (password !== null) await link.send('AUTH', username === null ? [password] : [username, password]);
    return link;
  } catch (error) {
    link.close();
    throw (
      loginProblem(error, label) ??
      tlsProblem(link.lastError ?? error, label) ??
      new Error(`${label}: ${(error as Error).message}`)
    );
  } finally {
    frozen();
  }
}

export class ClusterTopology {
  readonly #access: ClusterAccess;
  #owners: readonly (HostPort | null)[] = [];
  /** Goes up whenever a slot is served by another server than before. */
  #version = 0;
  #askedMs = 0;
  #asking: Promise<void> | null = null;

  constructor(access: ClusterAccess) {
    this.#access = access;
  }

  /** When the question was asked whose answer counts now, as performance.now() gives it. */
  get askedMs(): number {
    return this.#askedMs;
  }

  /** Goes up with each change. */
  get version(): number {
    return this.#version;
  }

  /** The server of each slot, null where none does. Another array after each change. */
  get owners(): readonly (HostPort | null)[] {
    return this.#owners;
  }

  /** The server that serves a slot; null when none does. */
  owner(slot: number): HostPort | null {
    return this.#owners[slot] ?? null;
  }

  /** Every server that serves slots, by its label, with these slots. */
  servers(): Map<string, { readonly place: HostPort; readonly slots: number[] }> {
    const found = new Map<string, { place: HostPort; slots: number[] }>();
    for (const [slot, place] of this.#owners.entries()) {
      if (place === null) continue;
      const label = placeLabel(place);
      let server = found.get(label);
      if (server === undefined) {
        server = { place, slots: [] };
        found.set(label, server);
      }
      server.slots.push(slot);
    }
    return found;
  }

  /** What is wrong with the cluster as a whole, in words; null = nothing. */
  problem(): string | null {
    let served = 0;
    let first = -1;
    for (let slot = 0; slot < SLOTS; slot += 1) {
      if (this.owner(slot) !== null) served += 1;
      else if (first < 0) first = slot;
    }
    if (first < 0) return null;
    return `${this.#access.label} serves only ${served} of ${SLOTS} slots (slot ${first} is the first that is missing): have every slot served, for instance with valkey-cli --cluster fix`;
  }

  /** Asks anew; calls that overlap share the answer. Throws ConfigError, or an error that says why nobody answers. */
  refresh(): Promise<void> {
    this.#asking ??= this.#ask().finally(() => {
      this.#access.timers.after(PAUSE_MS, () => {
        this.#asking = null;
      });
    });
    return this.#asking;
  }

  async #ask(): Promise<void> {
    const { seeds, timers, timeoutMs } = this.#access;
    const askedMs = performance.now();
    const places = new Map<string, HostPort>();
    for (const { place } of this.servers().values()) places.set(placeLabel(place), place);
    for (const place of seeds) places.set(placeLabel(place), place);
    const answers: Answer[] = [];
    const problems: Error[] = [];
    let done: () => void = () => {};
    const over = new Promise<void>((resolve) => {
      done = resolve;
    });
    let cancel = timers.after(timeoutMs, () => done());
    const asked = [...places.values()].slice(0, MOST_ASKED).map(async (place) => {
      try {
        answers.push(await this.#askOne(place));
        if (answers.length > 1) return;
        cancel();
        cancel = timers.after(OTHERS_MS, () => done());
      } catch (error) {
        problems.push(error as Error);
      }
    });
    await Promise.race([over, Promise.all(asked)]);
    cancel();
    const best = answers.reduce<Answer | null>(
      (one, two) => (one !== null && one.epoch >= two.epoch ? one : two),
      null,
    );
    if (best !== null) {
      this.#adopt(best.owners);
      this.#askedMs = askedMs;
      return;
    }
    const wrong = problems.find((problem) => problem instanceof ConfigError);
    if (wrong !== undefined) throw wrong;
    throw new Error(
      `no server of ${this.#access.label} answers: ${problems.map((p) => p.message).join('; ')}`,
    );
  }

  #adopt(owners: readonly (HostPort | null)[]): void {
    const label = (place: HostPort | null | undefined) => (place ? placeLabel(place) : '');
    if (owners.every((place, slot) => label(place) === label(this.#owners[slot]))) return;
    this.#version += 1;
    this.#owners = owners;
  }

  async #askOne(place: HostPort): Promise<Answer> {
    const link = await linkTo(this.#access, place);
    const frozen = this.#access.timers.after(this.#access.timeoutMs, () => link.close());
    try {
      const [slots, info] = await Promise.all([
        link.send('CLUSTER', ['SLOTS']),
        link.send('CLUSTER', ['INFO']),
      ]);
      const epoch = /cluster_current_epoch:(\d+)/.exec(bytesOf(info) ?? '')?.[1];
      return { epoch: Number(epoch ?? 0), owners: ownersOf(slots, place) };
    } catch (error) {
      if (/cluster support disabled/.test((error as Error).message)) {
        throw new ConfigError(
          `the server at ${placeLabel(place)} doesn't run in cluster mode: write redis://host:port as the store's URL`,
        );
      }
      throw new Error(`${placeLabel(place)}: ${(error as Error).message}`);
    } finally {
      frozen();
      link.close();
    }
  }
}

/** Reads the answer to CLUSTER SLOTS that `asked` gave. */
function ownersOf(reply: Reply, asked: HostPort): (HostPort | null)[] {
  const owners: (HostPort | null)[] = new Array(SLOTS).fill(null);
  for (const range of listOf(reply)) {
    const [from, to, primary] = listOf(range);
    const [name, port] = listOf(primary);
    const host = bytesOf(name) as ByteString | null;
    // '?': a server that doesn't know its own name; none: the one that is asked.
    if (host === '?') continue;
    const place = { host: host || asked.host, port: numberOf(port) };
    owners.fill(place, numberOf(from), numberOf(to) + 1);
  }
  return owners;
}
