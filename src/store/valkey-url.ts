/** Reads the URL of a Valkey server. */
import { ConfigError } from '../errors.js';

/** Where a server is and how to log in. */
export interface ValkeyAddress {
  readonly host: string;
  readonly port: number;
  readonly tls: boolean;
  readonly username: string | null;
  readonly password: string | null;
  readonly db: number;
  /** `host:port`, for messages: it never holds the password. */
  readonly label: string;
}

const PROTOCOLS = new Map([
  ['redis:', false],
  ['valkey:', false],
  ['rediss:', true],
  ['valkeys:', true],
]);

/** The forms of URL that are understood, for messages. */
export const VALKEY_URL_FORM =
  'redis://[[user]:password@]host[:port][/db] (rediss:// for TLS; valkey:// and valkeys:// mean the same)';

/** Says whether a text begins like the URL of a Valkey server. */
export function isValkeyUrl(spec: string): boolean {
  return /^(redis|rediss|valkey|valkeys):/i.test(spec);
}

/** Reads a URL. Throws ConfigError, without showing the URL (it may hold a password), when it isn't of a known form. */
export function parseValkeyUrl(text: string): ValkeyAddress {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    // No cause: Node's error shows its input.
    throw new ConfigError(
      `the store's URL can't be read: write ${VALKEY_URL_FORM}; escape special characters of the password as %XX`,
    );
  }
  const tls = PROTOCOLS.get(url.protocol);
  if (tls === undefined || url.hostname === '')
    throw new ConfigError(`the store's URL has no host: write ${VALKEY_URL_FORM}`);
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  const port = url.port === '' ? 6379 : Number(url.port);
  const path = url.pathname.replace(/^\//, '');
  if (!/^\d{0,9}$/.test(path))
    throw new ConfigError(`the store's URL names database ${JSON.stringify(path)}: it must be a number`);
  const decoded = (part: string) => {
    try {
      return part === '' ? null : decodeURIComponent(part);
    } catch {
      throw new ConfigError("the store's URL holds a user or password with a stray %: write it as %25");
    }
  };
  return {
    host,
    port,
    tls,
    username: decoded(url.username),
    password: decoded(url.password),
    db: Number(path),
    label: `${url.hostname}:${port}`,
  };
}
