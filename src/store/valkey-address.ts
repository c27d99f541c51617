/** Where a region's Valkey is and how to log in: the forms that are understood are in valkey-url.ts and {@link ValkeyServerOptions}. */
import { readFileSync } from 'node:fs';
import type { ConnectionOptions } from 'node:tls';
import type { ByteString } from '../../crdts/bytes.js';
import { ConfigError } from '../errors.js';

/** A TCP port. */
export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** Where a server listens: a TCP port, or a Unix socket. */
export type Place = HostPort | { readonly path: string };

/** User and password; null: none is sent. */
export interface Login {
  readonly username: string | null;
  readonly password: string | null;
}

/** Makes the TLS options of a connection, anew for each one, so that a renewed file counts at once. Throws ConfigError. */
export type MakeTls = () => ConnectionOptions;

/** Sentinels, and the name under which they watch the primary. */
export interface Sentinels {
  readonly name: string;
  readonly places: readonly HostPort[];
  readonly login: Login;
  readonly tls: MakeTls | null;
}

/** Some servers of a cluster; the others are learned from them. */
export interface ClusterSeeds {
  readonly seeds: readonly HostPort[];
}

/** A part of a cluster: whatever server has its anchor slot now (cluster-shards.ts). */
export interface ClusterPart {
  /** Its hash of facts, which stands in the anchor slot. */
  readonly meta: ByteString;
  /** The writer that commits there: the same one on all parts. */
  readonly writer: ByteString;
  find(): Promise<Place>;
  /** How new data there are named; null = anyhow. */
  dataset(): ByteString | null;
}

/** Where a region's keys are and how to log in. */
export interface ValkeyAddress extends Access {
  /** The server, or who knows it. */
  readonly at: Place | Sentinels | ClusterSeeds;
}

/** Where one server is and how to log in. */
export interface ServerAddress extends Access {
  readonly at: Place | Sentinels | ClusterPart;
}

interface Access {
  readonly login: Login;
  readonly tls: MakeTls | null;
  readonly db: number;
  /** For messages; it never holds the password. */
  readonly label: string;
}

/** A server as an object, with ioredis's names. */
export interface ValkeyServerOptions {
  /** Default: '127.0.0.1'. */
  readonly host?: string;
  /** Default: 6379. */
  readonly port?: number;
  /** Path of a Unix socket, instead of host and port. */
  readonly path?: string;
  /** Sentinels, instead of host and port; give all of them. Default port: 26379. */
  readonly sentinels?: readonly { readonly host: string; readonly port?: number }[];
  /** The name under which the sentinels watch the primary. */
  readonly name?: string;
  /** Some servers of a Valkey Cluster, instead of host and port. Default port: 6379. */
  readonly cluster?: readonly { readonly host: string; readonly port?: number }[];
  readonly username?: string;
  readonly password?: string;
  /** User and password of the sentinels themselves. Default: none. */
  readonly sentinelUsername?: string;
  readonly sentinelPassword?: string;
  /** Number of the database. Default: 0. */
  readonly db?: number;
  /** TLS with Node's own options (ca, cert, key, servername …). Default: no TLS. */
  readonly tls?: ConnectionOptions;
  /** TLS of the connections to the sentinels. Default: no TLS. */
  readonly sentinelTLS?: ConnectionOptions;
}

/** A place as text: `host:port`, `[address]:port` or the path of a socket. */
export function placeLabel(place: Place): string {
  if ('path' in place) return place.path;
  return `${place.host.includes(':') ? `[${place.host}]` : place.host}:${place.port}`;
}

/** How an address is named in messages. */
export function addressLabel(at: Place | Sentinels | ClusterSeeds): string {
  if ('seeds' in at) return `the cluster of ${at.seeds.map(placeLabel).join(', ')}`;
  if (!('places' in at)) return placeLabel(at);
  return `${at.name} (sentinels ${at.places.map(placeLabel).join(', ')})`;
}

/** TLS options out of files. Default of each: none, as Node has it. */
export function tlsFromFiles(files: {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly servername?: string;
}): MakeTls {
  const read = (name: 'ca' | 'cert' | 'key') => {
    const file = files[name];
    if (file === undefined) return {};
    try {
      return { [name]: readFileSync(file) };
    } catch (cause) {
      throw new ConfigError(
        `the store's URL names ${name}=${file}, which can't be read (${(cause as Error).message})`,
        { cause },
      );
    }
  };
  const { servername } = files;
  return () => ({
    ...read('ca'),
    ...read('cert'),
    ...read('key'),
    ...(servername === undefined ? {} : { servername }),
  });
}

/** Said of a cluster with a number of a database. */
export const ONE_DATABASE = "a cluster has one database: leave the number out of the store's address";

/** Reads an object that describes a server. Throws ConfigError when a part of it isn't of its form. */
export function addressOf(options: ValkeyServerOptions): ValkeyAddress {
  const text = (name: 'host' | 'path' | 'name' | keyof Secrets): string | null => {
    const value: unknown = options[name];
    if (value === undefined || value === null) return null;
    if (typeof value !== 'string' || value === '')
      throw new ConfigError(`the store's ${name} must be a text that isn't empty`);
    return value;
  };
  const port = (value: unknown, fallback: number): number => {
    if (value === undefined) return fallback;
    if (typeof value === 'number' && Number.isInteger(value) && value > 0 && value < 65_536) return value;
    throw new ConfigError("the store's port must be a whole number from 1 to 65535");
  };
  const { db = 0, tls, sentinelTLS, sentinels, cluster } = options;
  if (!Number.isInteger(db) || db < 0)
    throw new ConfigError("the store's db must be a whole number, 0 or more");
  const login = { username: text('username'), password: text('password') };
  const rest = { login, tls: tls === undefined ? null : () => tls, db };
  if (sentinels !== undefined) {
    const name = text('name');
    if (name === null || !Array.isArray(sentinels) || sentinels.length === 0)
      throw new ConfigError(
        "the store's sentinels must be a list of { host, port }, and name their primary's name",
      );
    const at: Sentinels = {
      name,
      places: sentinels.map((each) => {
        if (typeof each?.host !== 'string' || each.host === '')
          throw new ConfigError("each of the store's sentinels must be { host, port }");
        return { host: each.host, port: port(each.port, 26_379) };
      }),
      login: { username: text('sentinelUsername'), password: text('sentinelPassword') },
      tls: sentinelTLS === undefined ? null : () => sentinelTLS,
    };
    return { at, ...rest, label: addressLabel(at) };
  }
  if (cluster !== undefined) {
    if (db !== 0) throw new ConfigError(ONE_DATABASE);
    if (!Array.isArray(cluster) || cluster.length === 0)
      throw new ConfigError("the store's cluster must be a list of { host, port }");
    const seeds = cluster.map((each) => {
      if (typeof each?.host !== 'string' || each.host === '')
        throw new ConfigError("each server of the store's cluster must be { host, port }");
      return { host: each.host, port: port(each.port, 6379) };
    });
    return { at: { seeds }, ...rest, label: addressLabel({ seeds }) };
  }
  const path = text('path');
  const at: Place =
    path === null ? { host: text('host') ?? '127.0.0.1', port: port(options.port, 6379) } : { path };
  return { at, ...rest, label: addressLabel(at) };
}

type Secrets = Pick<ValkeyServerOptions, 'username' | 'password' | 'sentinelUsername' | 'sentinelPassword'>;
