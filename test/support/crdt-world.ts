/** A few regions with one key each, on a clock that only commands move: the stage of the SEMANTICS tables. */
import assert from 'node:assert/strict';
import {
  type ByteString,
  emptyKeyState,
  HybridClock,
  type Integer,
  type KeyState,
  membersOf,
  mergeKeyState,
  readDecimal,
  STAMP_EPOCH_MS,
  stringValue,
  visibleType,
} from '../../crdts/index.js';
import { type Command, commandDeltaAt, keySubject } from './crdt-keys.js';

export const START = STAMP_EPOCH_MS + 1_000_000;

/** One key in a few regions. */
export class World {
  now = START;
  readonly regions: Region[];

  constructor(...names: string[]) {
    this.regions = names.map((name) => new Region(this, name));
  }

  /** The regions synchronise. */
  sync(): void {
    for (const from of this.regions) for (const to of this.regions) if (from !== to) to.receive(from);
    for (const from of this.regions) for (const to of this.regions) if (from !== to) to.receive(from);
    const [first, ...others] = this.regions;
    for (const other of others) assert.equal(keySubject.encode(other.state), keySubject.encode(first!.state));
  }

  /** What every region shows; fails when they differ. */
  get(): string | null {
    this.sync();
    const values = this.regions.map((region) => region.get());
    for (const value of values) assert.equal(value, values[0]);
    return values[0]!;
  }

  members(): string {
    this.sync();
    const lists = this.regions.map((region) => region.members());
    for (const list of lists) assert.equal(list, lists[0]);
    return lists[0]!;
  }
}

export class Region {
  state: KeyState = emptyKeyState();
  readonly world: World;
  readonly name: string;
  readonly clock: HybridClock;

  constructor(world: World, name: string) {
    this.world = world;
    this.name = name;
    this.clock = new HybridClock(() => world.now);
  }

  do(command: Command): this {
    // Time passes between commands, so that order is what the rows say; equal stamps have a row of their own.
    this.world.now += 1;
    const next = () => ({ replica: this.name, stamp: this.clock.next() });
    mergeKeyState(this.state, commandDeltaAt(this.state, command, this.world.now, next));
    return this;
  }

  receive(from: Region): void {
    mergeKeyState(this.state, keySubject.decode(keySubject.encode(from.state)));
    this.clock.observe(from.clock.last);
  }

  set = (value: string) => this.do({ op: 'SET', value: value as ByteString });
  incr = (by: Integer) => this.do({ op: 'INCRBY', by });
  incrFloat = (by: string) => this.do({ op: 'INCRBYFLOAT', by: readDecimal(by) });
  del = () => this.do({ op: 'DEL' });
  sadd = (...members: string[]) => this.do({ op: 'SADD', members: members as ByteString[] });
  srem = (...members: string[]) => this.do({ op: 'SREM', members: members as ByteString[] });
  expire = (seconds: number | null) =>
    this.do({ op: 'PEXPIREAT', at: seconds === null ? null : this.world.now + 1000 * seconds });

  type = () => visibleType(this.state, this.world.now);
  get = () => (this.type() === 'string' ? stringValue(this.state.string!) : null);
  members = () => (this.type() === 'set' ? membersOf(this.state.set!).sort().join() : '');
}

/** A world and its first three regions. */
export function world(...names: string[]): { w: World; a: Region; b: Region; c: Region } {
  const w = new World(...names);
  const [a, b, c] = w.regions;
  return { w, a: a!, b: b!, c: c! };
}

/** A world of two regions. */
export const two = () => world('A', 'B');
