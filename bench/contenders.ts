/**
 * Other people's CRDT libraries, and ours, behind one interface: make messages of operations, and merge them. What is timed is
 * `merge` alone: bytes → merged document, through each library's own codec. Each is used as its documentation says, in the fastest
 * form that keeps the result observable after every message.
 */
import { next as automerge } from '@automerge/automerge';
import { ORSet, PNCounter } from 'crdts';
import deltaCrdts, { type Replica } from 'delta-crdts';
import DotSet from 'delta-crdts/src/dot-set.js';
import codec from 'delta-crdts-msgpack-codec';
import { LoroDoc } from 'loro-crdt';
import { Packr } from 'msgpackr';
import * as Y from 'yjs';
import { type ByteString, createDocument, type Document } from '../crdts/index.js';
import { pack, unpack } from '../src/replica/msgpack.js';

/** One operation: the type of its key says what it does. */
export interface Op {
  readonly key: string;
  /** Registers: the value that is set. Sets: the member that is added. Counters: unused, each adds 1. */
  readonly value: string;
}

export type Kind = 'registers' | 'counters' | 'sets';

/** A library. `S` is its document. */
export interface Contender<S = unknown> {
  readonly name: string;
  readonly kinds: readonly Kind[];
  /** One message per batch, all from one replica, that no other has when `client` is another. */
  encode(kind: Kind, batches: readonly (readonly Op[])[], client?: number): Uint8Array[];
  /** Merges messages into an empty document. */
  merge(kind: Kind, messages: readonly Uint8Array[]): S;
  /** What a key holds: value, count, or number of members. */
  read(kind: Kind, state: S, key: string): unknown;
}

const NOW = Date.UTC(2026, 0, 1);

export const ours: Contender<Document> = {
  name: 'valkey-mesh',
  kinds: ['registers', 'counters', 'sets'],
  encode(kind, batches, client = 0) {
    const document = createDocument({ replica: `kq3v${1000 + client}.1`, now: () => NOW });
    return batches.map((batch) => {
      for (const { key, value } of batch) {
        if (kind === 'registers') document.set(key as ByteString, value as ByteString);
        else if (kind === 'counters') document.increment(key as ByteString, 1);
        else document.add(key as ByteString, value as ByteString);
      }
      return pack(document.takeDeltas()[0]);
    });
  },
  merge(_kind, messages) {
    const document = createDocument({ replica: 'zz4bq1cd.1', now: () => NOW });
    for (const bytes of messages) document.mergeBytes(bytes, unpack);
    return document;
  },
  read(kind, document, key) {
    if (kind === 'sets') return document.members(key as ByteString).length;
    const value = document.get(key as ByteString);
    return kind === 'counters' ? Number(value) : value;
  },
};

const yjs: Contender<Y.Doc> = {
  name: 'yjs',
  kinds: ['registers'],
  encode(_kind, batches) {
    const doc = new Y.Doc();
    const messages: Uint8Array[] = [];
    doc.on('update', (update: Uint8Array) => messages.push(update));
    const map = doc.getMap('map');
    for (const batch of batches) {
      doc.transact(() => {
        for (const { key, value } of batch) map.set(key, value);
      });
    }
    return messages;
  },
  merge(_kind, messages) {
    const doc = new Y.Doc();
    doc.getMap('map');
    for (const message of messages) Y.applyUpdate(doc, message);
    return doc;
  },
  read: (_kind, doc, key) => doc.getMap('map').get(key),
};

const loro: Contender<LoroDoc> = {
  name: 'loro-crdt',
  kinds: ['registers'],
  encode(_kind, batches) {
    const doc = new LoroDoc();
    const map = doc.getMap('map');
    return batches.map((batch) => {
      const from = doc.version();
      for (const { key, value } of batch) map.set(key, value);
      doc.commit();
      return doc.export({ mode: 'update', from });
    });
  },
  merge(_kind, messages) {
    const doc = new LoroDoc();
    for (const message of messages) doc.import(message);
    return doc;
  },
  read: (_kind, doc, key) => doc.getMap('map').get(key),
};

type AutomergeDoc = automerge.Doc<Record<string, automerge.ImmutableString>>;

const automergeMap: Contender<AutomergeDoc> = {
  name: '@automerge/automerge',
  kinds: ['registers'],
  encode(_kind, batches) {
    let doc: AutomergeDoc = automerge.init();
    return batches.map((batch) => {
      doc = automerge.change(doc, (draft) => {
        for (const { key, value } of batch) draft[key] = new automerge.ImmutableString(value);
      });
      return automerge.getLastLocalChange(doc)!;
    });
  },
  merge(_kind, messages) {
    let doc: AutomergeDoc = automerge.init();
    for (const message of messages) [doc] = automerge.applyChanges(doc, [message]);
    return doc;
  },
  read: (_kind, doc, key) => doc[key]?.val,
};

const keyed = (batch: readonly Op[]): Map<string, string[]> => {
  const byKey = new Map<string, string[]>();
  for (const { key, value } of batch) {
    const values = byKey.get(key);
    if (values === undefined) byKey.set(key, [value]);
    else values.push(value);
  }
  return byKey;
};

/** A message = [[key, delta], …]. The deltas of one key in a batch are joined, as ours are. */
const deltaCrdtsMap: Contender<Map<string, Replica>> = {
  name: 'delta-crdts',
  kinds: ['counters', 'sets'],
  encode(kind, batches) {
    const sources = new Map<string, Replica | DotSet>();
    return batches.map((batch) => {
      const message: [string, unknown][] = [];
      for (const [key, values] of keyed(batch)) {
        const source =
          sources.get(key) ?? (kind === 'sets' ? new DotSet() : deltaCrdts('pncounter')('writer'));
        sources.set(key, source);
        if (source instanceof DotSet) {
          // Its `add` mutator searches the whole set for each member; the members are known to be new. And its join of two
          // deltas forgets members (it takes the dots of a batch for a context without gaps), so this one is put together by hand.
          const delta = new DotSet();
          for (const value of values) {
            const { ds } = source.add('writer', value);
            for (const [dot, item] of ds) {
              delta.ds.set(dot, item);
              delta.cc.insertDot(...(JSON.parse(dot) as [string, number]));
            }
          }
          message.push([key, delta]);
        } else {
          let delta: unknown;
          for (const _ of values) delta = source.inc();
          message.push([key, delta]);
        }
      }
      return codec.encode(message).slice();
    });
  },
  merge(kind, messages) {
    const make = deltaCrdts(kind === 'sets' ? 'aworset' : 'pncounter');
    const map = new Map<string, Replica>();
    for (const bytes of messages) {
      for (const [key, delta] of codec.decode(bytes) as [string, unknown][]) {
        let replica = map.get(key);
        if (replica === undefined) {
          replica = make('reader');
          map.set(key, replica);
        }
        replica.apply(delta);
      }
    }
    return map;
  },
  read(kind, map, key) {
    const value = map.get(key)?.value();
    return kind === 'sets' ? (value as Set<string>).size : value;
  },
};

const packr = new Packr({ useRecords: false });

/** It sends whole states; a state of just the new members is as good as a delta. A message = [[key, state], …], by msgpackr. */
const crdtsMap: Contender<Map<string, ORSet | PNCounter>> = {
  name: 'crdts',
  kinds: ['counters', 'sets'],
  encode(kind, batches) {
    const counters = new Map<string, PNCounter>();
    let tag = 0;
    return batches.map((batch) => {
      const message: [string, unknown][] = [];
      for (const [key, values] of keyed(batch)) {
        if (kind === 'sets') {
          const set = new ORSet();
          for (const value of values) {
            tag += 1;
            set.add(value, `writer ${tag}`);
          }
          message.push([key, set.toJSON()]);
        } else {
          const counter = counters.get(key) ?? new PNCounter('writer');
          counters.set(key, counter);
          for (const _ of values) counter.increment(1);
          message.push([key, structuredClone(counter.toJSON())]);
        }
      }
      return packr.pack(message);
    });
  },
  merge(kind, messages) {
    const map = new Map<string, ORSet | PNCounter>();
    for (const bytes of messages) {
      for (const [key, state] of packr.unpack(bytes) as [string, unknown][]) {
        let own = map.get(key);
        if (own === undefined) {
          own = kind === 'sets' ? new ORSet() : new PNCounter('reader');
          map.set(key, own);
        }
        if (own instanceof PNCounter) own.merge(PNCounter.from(state));
        else own.merge(ORSet.from(state));
      }
    }
    return map;
  },
  read(_kind, map, key) {
    const own = map.get(key);
    return own instanceof PNCounter ? own.value : own?.toArray().length;
  },
};

/** All others; each takes part in the kinds that it has. */
export const others: readonly Contender[] = [yjs, loro, automergeMap, deltaCrdtsMap, crdtsMap] as Contender[];
