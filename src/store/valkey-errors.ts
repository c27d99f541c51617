/** Turns what a server refuses into errors that say what to do. */
import { ConfigError, StoreRefusedError } from '../errors.js';
import { ServerReplyError } from './valkey-link.js';

const ADVICE: readonly (readonly [prefix: string, advice: string])[] = [
  ['OOM', 'raise its maxmemory, or delete keys'],
  ['READONLY', 'it is a read-only replica now: connect to the primary'],
  ['MISCONF', "it can't write to its disk: free some space, and see its log"],
  ['LOADING', 'it is still loading its data: try again shortly'],
  ['NOAUTH', "give its password in the store's URL"],
  ['WRONGPASS', "correct the password in the store's URL"],
  ['NOPERM', 'its user lacks a permission: allow all commands on all keys (+@all ~*)'],
  ['NOREPLICAS', 'too few of its replicas are in step: see min-replicas-to-write'],
  ['MASTERDOWN', 'it is a replica that lost its primary: connect to the primary'],
  ['BUSY', 'a script of someone else keeps it busy: SCRIPT KILL ends that'],
  ['CLUSTERDOWN', 'its cluster is down: see CLUSTER INFO, and have every slot served'],
];

/** Said by a server of a cluster that doesn't have a key's slot now, or is handing it over. The last is what scripts are told. */
const MOVED = /^(MOVED|ASK|TRYAGAIN|CROSSSLOT) |non local key/;

/** The reason of a StoreRefusedError for a slot that isn't where it was looked for. */
export const MOVED_REASON = 'MOVED';

/** The error for a reply that refuses a command; nothing was written. Its message begins with the server's own prefix. */
export function refused(error: ServerReplyError, label: string): StoreRefusedError {
  if (MOVED.test(error.message)) {
    const text = `TRYAGAIN a slot is being moved (said by Valkey at ${label}: ${error.message}): try again when that is done`;
    return new StoreRefusedError(text, { cause: error, reason: MOVED_REASON });
  }
  const [reason = null, advice] = ADVICE.find(([prefix]) => error.message.startsWith(prefix)) ?? [];
  const text = `${error.message} (said by Valkey at ${label}${advice === undefined ? '' : `: ${advice}`})`;
  return new StoreRefusedError(text, { cause: error, reason });
}

const LOGIN = ['WRONGPASS', 'NOAUTH', 'NOPERM'];

/** The error for a refused login, which no retry mends; null when the reply says something else. */
export function loginProblem(
  error: unknown,
  label: string,
  who: 'Valkey' | 'sentinel' = 'Valkey',
): ConfigError | null {
  if (!(error instanceof ServerReplyError)) return null;
  if (LOGIN.some((prefix) => error.message.startsWith(prefix)) || /\bAUTH\b/.test(error.message)) {
    const where =
      who === 'Valkey'
        ? "user and password in the store's URL"
        : "sentinel-username and sentinel-password in the store's URL";
    return new ConfigError(`${who} at ${label} refused the login: ${error.message} (check ${where})`, {
      cause: error,
    });
  }
  return null;
}

/** What Node and OpenSSL say, and what to do about it; the first that fits counts. */
const TLS_ADVICE: readonly (readonly [said: RegExp, advice: string])[] = [
  [/^CERT_HAS_EXPIRED$/, "the server's certificate has expired: renew it there"],
  [/^CERT_NOT_YET_VALID$/, "the server's certificate is not valid yet: compare the two machines' clocks"],
  [
    /^(SELF_SIGNED_CERT_IN_CHAIN|DEPTH_ZERO_SELF_SIGNED_CERT|UNABLE_TO_VERIFY_LEAF_SIGNATURE|UNABLE_TO_GET_ISSUER_CERT(_LOCALLY)?)$/,
    "the server's certificate is not signed by a CA that is known here: give that CA's file, ?ca=FILE",
  ],
  [
    /^ERR_TLS_CERT_ALTNAME_INVALID$/,
    "the server's certificate is for another name: use that name as the host, or give ?servername=NAME",
  ],
  [/ALERT_(BAD_)?CERTIFICATE_EXPIRED/, 'the client certificate has expired: renew the one that ?cert= names'],
  [
    /ALERT_(CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE)/,
    'the server asks for a client certificate: give ?cert=FILE&key=FILE',
  ],
  [
    /ALERT_(UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_UNKNOWN|UNSUPPORTED_CERTIFICATE)/,
    'the server does not accept the client certificate: give one of a CA that it knows as ?cert=FILE&key=FILE',
  ],
  [/WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG/, 'what listens there speaks no TLS: use redis://'],
  [
    /^ERR_OSSL_|PEM|KEY_VALUES_MISMATCH/,
    'the files that ca, cert and key name are not PEM files that belong together',
  ],
];

/** The error for a TLS handshake that only the operator can mend; null when the error is of another kind. */
export function tlsProblem(error: unknown, label: string): ConfigError | null {
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  if (typeof code !== 'string') return null;
  const advice = TLS_ADVICE.find(([said]) => said.test(code))?.[1];
  if (advice === undefined) return null;
  return new ConfigError(`no TLS with Valkey at ${label}: ${advice} (${code}: ${String(message)})`, {
    cause: error,
  });
}
