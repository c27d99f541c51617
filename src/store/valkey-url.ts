/**
 * Reads the URL of a Valkey server.
 *
 * | form | |
 * |---|---|
 * | `redis://[[user]:password@]host[:port][/db]` | one server; an IPv6 address stands in brackets |
 * | `rediss://…[?ca=FILE&cert=FILE&key=FILE&servername=NAME]` | the same with TLS: own CA, client certificate, expected name; all PEM |
 * | `redis+sentinel://[[user]:password@]host[:port],host[:port]…/name[/db][?sentinel-password=…&sentinel-username=…]` | the primary that these sentinels know under a name |
 * | `rediss+sentinel://…` | the same, with TLS to the sentinels and to the servers |
 * | `redis+cluster://[[user]:password@]host[:port],host[:port]…` | the Valkey Cluster that these servers belong to; one is enough |
 * | `rediss+cluster://…[?ca=FILE&cert=FILE&key=FILE&servername=NAME]` | the same with TLS |
 * | `unix://[[user]:password@]/path/to/socket[?db=N]`, `/path/to/socket` | a Unix socket; `redis+unix://` means the same |
 *
 * `valkey` stands for `redis` anywhere. Special characters are written as %XX. Nothing unknown is ignored.
 */
import { ConfigError } from '../errors.js';
import {
  addressLabel,
  type ClusterSeeds,
  type HostPort,
  type Login,
  type MakeTls,
  ONE_DATABASE,
  type Place,
  type Sentinels,
  tlsFromFiles,
  type ValkeyAddress,
} from './valkey-address.js';

/** The forms of URL that are understood, for messages. */
export const VALKEY_URL_FORM =
  'redis://[[user]:password@]host[:port][/db] (rediss:// for TLS), redis+sentinel://host:port,host:port/name, redis+cluster://host:port,host:port, or unix:///path (valkey:// means the same as redis://)';

const SCHEME = /^(?:(?:redis|valkey)(s?)(\+sentinel|\+cluster)?|(unix|(?:redis|valkey)\+unix)):/i;
const PARTS = /^[a-z+]+:\/\/(?:([^/?#]*)@)?([^/?#]*)(\/[^?#]*)?(?:\?([^#]*))?$/i;
const HOST = /^(?:\[([0-9a-f:.]+(?:%[\w.-]+)?)\]|([^\s:[\]%]+))(?::(\d{1,5}))?$/i;

const TLS_SETTINGS = ['ca', 'cert', 'key', 'servername'] as const;
const SENTINEL_SETTINGS = ['sentinel-username', 'sentinel-password'] as const;

/** Says whether a text begins like the URL of a Valkey server, or is the path of a socket. */
export function isValkeyUrl(spec: string): boolean {
  return spec.startsWith('/') || SCHEME.test(spec);
}

/** Says whether a text begins like the URL of a cluster. */
export function isClusterUrl(spec: string): boolean {
  return SCHEME.exec(spec)?.[2]?.toLowerCase() === '+cluster';
}

/** Reads a URL. Throws ConfigError, without showing the URL (it may hold a password), when it isn't of a known form. */
export function parseValkeyUrl(text: string): ValkeyAddress {
  if (text.startsWith('/')) {
    const at = { path: text };
    return { at, login: { username: null, password: null }, tls: null, db: 0, label: addressLabel(at) };
  }
  const scheme = SCHEME.exec(text);
  const parts = PARTS.exec(text);
  if (scheme === null || parts === null) {
    throw new ConfigError(
      `the store's URL can't be read: write ${VALKEY_URL_FORM}; escape special characters of the password as %XX`,
    );
  }
  const [, userInfo = '', hosts = '', path = '', query = ''] = parts;
  const login = loginOf(userInfo);
  const secure = scheme[1] !== undefined && scheme[1] !== '';
  if (scheme[3] !== undefined) {
    const settings = settingsOf(query, ['db']);
    if (hosts !== '' || path.length < 2)
      throw new ConfigError("the store's URL names no socket: write unix:///path/to/socket");
    const at = { path: decoded(path) };
    return { at, login, tls: null, db: dbOf(settings.get('db') ?? ''), label: addressLabel(at) };
  }
  const sentinel = scheme[2]?.toLowerCase() === '+sentinel';
  const cluster = scheme[2]?.toLowerCase() === '+cluster';
  const settings = settingsOf(query, [
    ...(secure ? TLS_SETTINGS : []),
    ...(sentinel ? SENTINEL_SETTINGS : []),
  ]);
  const tls = secure ? tlsOf(settings) : null;
  const places = hosts.split(',').map((host) => hostOf(host, sentinel ? 26_379 : 6379));
  const [first = '', second = '', ...more] = path.replace(/^\//, '').split('/');
  let at: Place | Sentinels | ClusterSeeds;
  if (sentinel) {
    if (first === '')
      throw new ConfigError(
        "the store's URL doesn't say which primary to ask the sentinels for: write redis+sentinel://host:port,host:port/name",
      );
    const username = settings.get('sentinel-username') ?? null;
    const password = settings.get('sentinel-password') ?? null;
    at = { name: decoded(first), places, login: { username, password }, tls };
  } else if (cluster) {
    if (first !== '' && first !== '0') throw new ConfigError(ONE_DATABASE);
    at = { seeds: places };
  } else {
    if (places.length > 1)
      throw new ConfigError(
        "the store's URL has several hosts: write redis+cluster://… if they are servers of a cluster, redis+sentinel://… if they are sentinels",
      );
    at = places[0] as HostPort;
  }
  const rest = sentinel ? [second, ...more] : [first, second, ...more];
  const [db = '', ...none] = rest;
  if (none.some((part) => part !== '')) throw new ConfigError(BAD_DB);
  return { at, login, tls, db: dbOf(db), label: addressLabel(at) };
}

const BAD_DB = "the store's URL must end with the number of a database, such as /0, or with none";

function dbOf(text: string): number {
  if (!/^\d{0,9}$/.test(text)) throw new ConfigError(BAD_DB);
  return Number(text);
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new ConfigError("the store's URL holds a stray %: write it as %25");
  }
}

function loginOf(userInfo: string): Login {
  const colon = userInfo.indexOf(':');
  const user = colon < 0 ? userInfo : userInfo.slice(0, colon);
  const password = colon < 0 ? '' : userInfo.slice(colon + 1);
  return {
    username: user === '' ? null : decoded(user),
    password: password === '' ? null : decoded(password),
  };
}

function hostOf(text: string, defaultPort: number): HostPort {
  const match = HOST.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = match?.[3] === undefined ? defaultPort : Number(match[3]);
  if (host === undefined || port < 1 || port > 65_535)
    throw new ConfigError(`the store's URL has no host, or a wrong port: write ${VALKEY_URL_FORM}`);
  return { host, port };
}

function settingsOf(query: string, known: readonly string[]): Map<string, string> {
  const settings = new Map<string, string>();
  for (const part of query.split('&').filter((each) => each !== '')) {
    const equals = part.indexOf('=');
    const name = equals < 0 ? part : part.slice(0, equals);
    if (!known.includes(name)) {
      const those = known.length === 0 ? 'it takes none' : `it takes ${known.join(', ')}`;
      throw new ConfigError(`the store's URL has a setting that is not understood: ${those} after the ?`);
    }
    if (equals < 0 || equals === part.length - 1)
      throw new ConfigError(`the store's URL has the setting ${name} without a value`);
    settings.set(name, decoded(part.slice(equals + 1)));
  }
  return settings;
}

function tlsOf(settings: ReadonlyMap<string, string>): MakeTls {
  if (settings.has('cert') !== settings.has('key'))
    throw new ConfigError("the store's URL must have both cert and key for a client certificate, or neither");
  return tlsFromFiles(
    Object.fromEntries(
      TLS_SETTINGS.flatMap((name) => {
        const value = settings.get(name);
        return value === undefined ? [] : [[name, value]];
      }),
    ),
  );
}
