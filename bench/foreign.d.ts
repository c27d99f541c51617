/** What we use of packages that bring no types. */
declare module 'delta-crdts' {
  /** A replica of one of its types. */
  export interface Replica {
    apply(delta: unknown): void;
    value(): unknown;
    state(): unknown;
    inc(): unknown;
  }
  export interface Type {
    initial(): unknown;
    join(a: unknown, b: unknown): unknown;
  }
  interface DeltaCrdts {
    (type: string): (id: string) => Replica;
    type(name: string): Type;
  }
  const deltaCrdts: DeltaCrdts;
  export default deltaCrdts;
}

declare module 'delta-crdts/src/dot-set.js' {
  /** Add-wins set: live dots and causal context. */
  export default class DotSet {
    readonly ds: Map<string, unknown>;
    readonly cc: { insertDot(replica: string, count: number): void };
    add(id: string, value: unknown): DotSet;
  }
}

declare module 'delta-crdts-msgpack-codec' {
  const codec: { encode(value: unknown): { slice(): Uint8Array }; decode(bytes: Uint8Array): unknown };
  export default codec;
}

declare module 'crdts' {
  export class ORSet extends Set<string> {
    constructor(values?: unknown);
    add(value: string, tag?: unknown): this;
    merge(other: ORSet): void;
    toArray(): string[];
    toJSON(): { values: unknown[] };
    static from(json: unknown): ORSet;
  }
  export class PNCounter {
    constructor(id: string, p?: unknown, n?: unknown);
    readonly value: number;
    increment(by?: number): void;
    merge(other: PNCounter): void;
    toJSON(): { id: string };
    static from(json: unknown): PNCounter;
  }
}
