/** Reads what frame-writer.ts and commit-frame.ts wrote: a commit that was prepared in a cluster and is settled by someone else. */
import type { ByteString } from '../../crdts/bytes.js';
import { DecodeError } from '../errors.js';
import { META } from './layout.js';
import type { Commit, KeyWrite, NativeWrite, RaisedMark } from './store.js';

type Item = ByteString | number | boolean | Item[];

/** A commit's writes as they were framed, and what frames them. */
export interface FramedCommit {
  /** Name of the writer's field in the hash of facts. */
  readonly writer: ByteString;
  readonly commit: Commit;
}

class FrameReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  item(): Item {
    const bytes = this.#bytes;
    const type = bytes.readUInt8(this.#at);
    this.#at += 1;
    if (type < 0x80) return type;
    if (type >= 0x90 && type < 0xa0) return this.#array(type & 0x0f);
    if (type >= 0xa0 && type < 0xc0) return this.#string(type & 0x1f);
    switch (type) {
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xcb:
        this.#at += 8;
        return bytes.readDoubleBE(this.#at - 8);
      case 0xda:
        this.#at += 2;
        return this.#string(bytes.readUInt16BE(this.#at - 2));
      case 0xdb:
        this.#at += 4;
        return this.#string(bytes.readUInt32BE(this.#at - 4));
      case 0xdc:
        this.#at += 2;
        return this.#array(bytes.readUInt16BE(this.#at - 2));
      case 0xdd:
        this.#at += 4;
        return this.#array(bytes.readUInt32BE(this.#at - 4));
      default:
        throw new DecodeError(`a prepared commit holds an item of type ${type}`);
    }
  }

  #array(count: number): Item[] {
    const items: Item[] = [];
    for (let i = 0; i < count; i += 1) items.push(this.item());
    return items;
  }

  #string(length: number): ByteString {
    this.#at += length;
    if (this.#at > this.#bytes.length) throw new DecodeError('a prepared commit is cut short');
    return this.#bytes.toString('latin1', this.#at - length, this.#at) as ByteString;
  }
}

const list = (item: Item | undefined): Item[] => {
  if (Array.isArray(item)) return item;
  throw new DecodeError('a prepared commit holds something else where a list was due');
};

const text = (item: Item | undefined): ByteString => {
  if (typeof item === 'string') return item;
  throw new DecodeError('a prepared commit holds something else where a text was due');
};

const optional = (item: Item | undefined): ByteString | null => (item === false ? null : text(item));

/** The key that a hash of entries, `__mesh:{tag}e:KEY`, belongs to. */
const keyOf = (entries: ByteString): ByteString => entries.slice(entries.indexOf('}e:') + 3) as ByteString;

/** Reads a frame. The digests of a slot come with its first key, as one. Throws DecodeError when it isn't one. */
export function readCommit(bytes: Buffer): FramedCommit {
  const parts = list(new FrameReader(bytes).item());
  const writer = text(parts[1]);
  const headers = list(parts[7]);
  const writes = new Map<ByteString, { -readonly [Name in keyof KeyWrite]: KeyWrite[Name] }>();
  for (let at = 0; at < headers.length; ) {
    let digest = Number(headers[at + 1]);
    const count = Number(headers[at + 3]);
    at += 4;
    for (let i = 0; i < count; i += 1, at += 3) {
      const key = text(headers[at]);
      writes.set(key, {
        key,
        expected: optional(headers[at + 1]),
        header: optional(headers[at + 2]),
        digest,
      });
      digest = 0;
    }
  }
  const of = (key: ByteString) => {
    const write = writes.get(key);
    if (write === undefined) throw new DecodeError('a prepared commit names a key without its header');
    return write;
  };
  const native = (key: Item | undefined, what: NativeWrite) => {
    of(text(key)).native = what;
  };
  const each = (index: number, width: number, take: (items: readonly Item[]) => void) => {
    const items = list(parts[index]);
    for (let at = 0; at < items.length; at += width) take(items.slice(at, at + width));
  };
  each(8, 4, ([hash, clear, stored, removed]) => {
    const write = of(keyOf(text(hash)));
    const changes: [ByteString, ByteString | null][] = [];
    const flat = list(stored).map(text);
    for (let i = 0; i < flat.length; i += 2) changes.push([flat[i]!, flat[i + 1]!]);
    for (const element of list(removed)) changes.push([text(element), null]);
    write.entries = changes;
    write.clearEntries = clear === true;
  });
  each(9, 2, ([key, value]) => native(key, { kind: 'string', value: text(value) }));
  each(10, 1, ([key]) => native(key, { kind: 'delete' }));
  each(11, 4, ([key, , add, remove]) =>
    native(key, { kind: 'set', add: list(add).map(text), remove: list(remove).map(text) }),
  );
  each(12, 2, ([key]) => native(key, { kind: 'rebuild' }));
  each(13, 2, ([key, at]) => {
    const time = optional(at);
    of(text(key)).expireAtMs = time === null ? null : Number(time);
  });
  const applied: RaisedMark[] = [];
  const replicaOf = (field: Item | undefined) => text(field).slice(META.appliedPrefix.length);
  each(6, 4, ([field, number, stamp, after]) => {
    const mark = { replica: replicaOf(field), number: Number(number), stamp: Number(stamp) };
    applied.push(after === false ? mark : { ...mark, after: Number(after) });
  });
  const commit: Commit = { writes: [...writes.values()], applied };
  if (parts[5] === false) return { writer, commit };
  const [, field, number, stamp, logged] = list(parts[5]);
  const frame = {
    replica: replicaOf(field),
    number: Number(number),
    stamp: Number(stamp),
    bytes: Buffer.from(text(logged), 'latin1'),
  };
  return { writer, commit: { ...commit, frame } };
}
