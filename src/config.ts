/**
 * A peer's settings: what may stand on the command line and in the config file, under the same names, and what they
 * become. Flags win over the file, the file over the defaults; a list on the command line replaces the file's list.
 *
 * Whatever isn't understood is an error, and so is whatever couldn't be honoured: no setting is ignored.
 */
import { z } from 'zod';
import {
  type Address,
  formatAddress,
  isLoopbackHost,
  PEER_ID,
  parseAddress,
  parseMultiaddr,
} from './cli/address.js';
import { type ParsedRule, parseRule } from './cli/rule.js';
import { ConfigError } from './errors.js';
import { isValkeyUrl, parseValkeyUrl } from './store/valkey-url.js';

/** Levels of the log, the chattiest first. */
export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;

/** What a peer runs with. */
export interface PeerConfig {
  readonly region: string;
  /** 'memory' or the URL of the region's own Valkey. */
  readonly store: string;
  /** Multiaddrs that the mesh listens on. */
  readonly listen: readonly string[];
  /** Multiaddrs that others are told to dial; null = those it listens on. */
  readonly announce: readonly string[] | null;
  /** Multiaddrs of members to dial. */
  readonly peers: readonly string[];
  readonly resp: Address;
  readonly respPasswordFile: string | null;
  readonly http: Address | null;
  readonly identityFile: string | null;
  readonly meshKeyFile: string | null;
  /** PeerIds that may connect; null = everyone who can. */
  readonly allow: readonly string[] | null;
  readonly rules: readonly ParsedRule[];
  readonly whileLoading: 'refuse' | 'serve';
  /** Milliseconds; 0 = for ever. */
  readonly loadingPatienceMs: number;
  readonly tombstoneGraceMs: number;
  readonly logLevel: (typeof LOG_LEVELS)[number];
}

const REGION = /^[A-Za-z0-9_.-]{1,64}$/;

const path = z.string('give the path of a file').min(1, 'give the path of a file');
const multiaddr = z
  .string('give a multiaddr')
  .refine(
    (text) => parseMultiaddr(text) !== null,
    'give a TCP multiaddr, for example /ip4/127.0.0.1/tcp/4001',
  );
const announced = z
  .string('give a multiaddr')
  .refine(
    (text) => text === 'none' || parseMultiaddr(text) !== null,
    "give a TCP multiaddr, for example /dns4/host/tcp/4001, or 'none'",
  );
const address = z.string('give HOST:PORT').transform((text, context) => {
  const parsed = parseAddress(text);
  if (parsed !== null) return parsed;
  context.addIssue({ code: 'custom', message: 'give HOST:PORT, for example 127.0.0.1:6380' });
  return z.NEVER;
});
const rule = z.string('give PATTERN=TYPE[:POLICY]').transform((text, context) => {
  const parsed = parseRule(text);
  if (typeof parsed !== 'string') return parsed;
  context.addIssue({ code: 'custom', message: parsed });
  return z.NEVER;
});

/** Every setting, by the name of its flag. */
const settingsSchema = z.strictObject({
  region: z.string().regex(REGION, 'use 1–64 characters of A-Z a-z 0-9 _ . -').optional(),
  store: z
    .string()
    .superRefine((text, context) => {
      const problem = storeProblem(text);
      if (problem !== null) context.addIssue({ code: 'custom', message: problem });
    })
    .optional(),
  listen: z.array(multiaddr).optional(),
  announce: z
    .array(announced)
    .refine((list) => list.length === 1 || !list.includes('none'), "'none' stands alone")
    .transform((list) => list.filter((each) => each !== 'none'))
    .optional(),
  peer: z.array(multiaddr).optional(),
  resp: address.optional(),
  'resp-password': path.optional(),
  http: address.optional(),
  identity: path.optional(),
  'mesh-key': path.optional(),
  allow: z
    .array(z.string().regex(PEER_ID, "give a PeerId as 'valkey-mesh keygen' prints it (12D3KooW…)"))
    .min(1, 'name at least one PeerId, or leave it out to allow everyone who can connect')
    .optional(),
  rule: z.array(rule).optional(),
  'allow-flush': z
    .boolean('give true or false')
    .refine((on) => !on, 'is not supported yet: FLUSHALL and FLUSHDB are refused; leave it out')
    .optional(),
  unreplicated: z
    .enum(['refuse', 'local'], 'give refuse')
    .refine(
      (mode) => mode === 'refuse',
      "is not supported yet: commands that can't be replicated are refused; use refuse",
    )
    .optional(),
  'while-loading': z.enum(['refuse', 'serve'], 'give refuse or serve').optional(),
  'loading-patience': z.coerce
    .number('give a number of seconds')
    .min(0, 'give a number of seconds; 0 waits for ever')
    .max(86_400, 'give 86400 seconds at most; 0 waits for ever')
    .optional(),
  'tombstone-grace': z.coerce
    .number('give a number of seconds')
    .min(0, 'give a number of seconds, 0 or more')
    .max(86_400, 'give 86400 seconds at most')
    .optional(),
  'log-level': z.enum(LOG_LEVELS, `give one of ${LOG_LEVELS.join(', ')}`).optional(),
});

/** Settings as they were given, unchecked: from flags or from the config file. */
export type GivenSettings = Readonly<Record<string, unknown>>;

/** Reads the text of a config file: one JSON object. Throws ConfigError, naming the file. */
export function parseConfigFile(text: string, file: string): GivenSettings {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    throw new ConfigError(`config file ${file}: not valid JSON (${(cause as Error).message})`, { cause });
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    throw new ConfigError(`config file ${file}: must be one JSON object, for example {"region": "eu"}`);
  }
  return parsed as GivenSettings;
}

/** Merges flags over the config file over the defaults. Throws ConfigError, which names the setting, its value and what to do. */
export function resolvePeerConfig(
  flags: GivenSettings,
  file?: { readonly path: string; readonly settings: GivenSettings },
): PeerConfig {
  const fromFile = file ? check(file.settings, (name) => `config file ${file.path}, "${name}"`) : {};
  const given = { ...fromFile, ...check(flags, (name) => `--${name}`) };
  if (given.region === undefined) {
    throw new ConfigError('--region is missing: name the region of this peer, for example --region eu');
  }
  const config: PeerConfig = {
    region: given.region,
    store: given.store ?? 'memory',
    listen: given.listen ?? ['/ip4/127.0.0.1/tcp/0'],
    announce: given.announce ?? null,
    peers: given.peer ?? [],
    resp: given.resp ?? { host: '127.0.0.1', port: 6380 },
    respPasswordFile: given['resp-password'] ?? null,
    http: given.http ?? null,
    identityFile: given.identity ?? null,
    meshKeyFile: given['mesh-key'] ?? null,
    allow: given.allow ?? null,
    rules: given.rule ?? [],
    whileLoading: given['while-loading'] ?? 'refuse',
    loadingPatienceMs: Math.round((given['loading-patience'] ?? 30) * 1000),
    tombstoneGraceMs: Math.round((given['tombstone-grace'] ?? 60) * 1000),
    logLevel: given['log-level'] ?? 'info',
  };
  refuseOpenDoors(config);
  return config;
}

/** Hides the passwords of a store's URL, for logs and messages. */
export function redactUrl(url: string): string {
  return url.replace(/\/\/.*@/, '//***@').replace(/(sentinel-password=)[^&]*/, '$1***');
}

/** A default that is safe: whoever opens a door to the network says who may come in. */
function refuseOpenDoors(config: PeerConfig): void {
  if (!isLoopbackHost(config.resp.host) && config.respPasswordFile === null) {
    throw new ConfigError(
      `--resp ${formatAddress(config.resp)} can be reached from other machines, and has no password: ` +
        'add --resp-password FILE, or listen on 127.0.0.1',
    );
  }
  if (config.meshKeyFile !== null || config.allow !== null) return;
  const open = config.listen.find((each) => !isLoopbackHost(parseMultiaddr(each)?.host ?? ''));
  if (open === undefined) return;
  throw new ConfigError(
    `--listen ${open} can be reached from other machines, and anyone could join: add --mesh-key FILE ` +
      "(made by 'valkey-mesh keygen --mesh-key FILE', the same on all members), --allow PEERID for each member, or both",
  );
}

type Settings = z.output<typeof settingsSchema>;

function check(given: GivenSettings, name: (setting: string) => string): Settings {
  const result = settingsSchema.safeParse(given);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  if (issue.code === 'unrecognized_keys') {
    const known = Object.keys(settingsSchema.shape).join(', ');
    throw new ConfigError(`${name(issue.keys[0]!)}: there is no such setting; the settings are ${known}`);
  }
  const [setting, position] = issue.path;
  const whole = given[String(setting)];
  const value = typeof position === 'number' && Array.isArray(whole) ? whole[position] : whole;
  const shown = setting === 'store' ? redactUrl(String(value)) : value;
  throw new ConfigError(`${name(String(setting))} ${JSON.stringify(shown)}: ${issue.message}`);
}

/** What is wrong with a store's specification; null when nothing is. */
function storeProblem(text: string): string | null {
  if (text === 'memory') return null;
  if (!isValkeyUrl(text))
    return "give 'memory' or the URL of this region's own Valkey, for example redis://127.0.0.1:6379";
  try {
    parseValkeyUrl(text);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}
