/**
 * Rules as they are written on the command line and in the config file: `PATTERN=TYPE[:POLICY]`. A string's policy is a
 * named one, or the path of a module whose default export is a resolver.
 */
import { readFile } from 'node:fs/promises';
import { basename, extname, resolve as resolvePath } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type PolicyName, type Resolver, resolvers } from '../../crdts/policy.js';
import type { CustomPolicy, RuleOptions } from '../../crdts/rules.js';
import { ConfigError } from '../errors.js';

/** A rule that is well formed; the module that its policy may name has not been loaded. */
export interface ParsedRule {
  readonly pattern: string;
  readonly type: RuleOptions['type'];
  /** A named policy, or the path of a module. */
  readonly policy: string;
}

/** Each type's named policies, the default one first. Those of counters and sets only say what holds anyway. */
const POLICIES: Readonly<Record<RuleOptions['type'], readonly string[]>> = {
  string: Object.keys(resolvers).toSorted((a, b) => Number(b === 'lww') - Number(a === 'lww')),
  counter: ['sum'],
  set: ['add-wins'],
};
/** Types of the design that no code stands behind yet. */
const PLANNED = new Set(['hash', 'list', 'zset', 'stream']);
const MODULE = /\.[cm]?js$/;

/** Parses a rule; a string is the reason why it can't be used. */
export function parseRule(text: string): ParsedRule | string {
  // The last '=' before a type divides: a pattern may hold others, and so may a path.
  const match = /^(.+?)=([a-z]+)(?::(.+))?$/s.exec(text);
  if (match === null)
    return "it isn't of the form PATTERN=TYPE[:POLICY]; write for example 'user:*=string:lww'";
  const [, pattern = '', type = '', policy] = dividedLater(text) ?? match;
  if (!isType(type)) {
    const why = PLANNED.has(type) ? 'is not supported yet' : 'is unknown';
    return `the type "${type}" ${why}; use string, counter or set`;
  }
  const known = POLICIES[type];
  if (policy === undefined) return { pattern, type, policy: known[0]! };
  if (known.includes(policy) || (type === 'string' && MODULE.test(policy))) return { pattern, type, policy };
  const use = known.map((each) => `${type}:${each}`);
  if (type === 'string') use.push('string:./MODULE.mjs, whose default export is a resolver');
  return `the policy "${policy}" is unknown for the type ${type}; use ${use.join(' or ')}`;
}

/**
 * Loads the modules that rules name. Throws ConfigError when one can't be loaded or gives no function. A module's text
 * stands for its resolver in the fingerprint, so that members with different versions of it refuse each other.
 */
export function loadRules(rules: readonly ParsedRule[]): Promise<RuleOptions[]> {
  return Promise.all(
    rules.map(async ({ pattern, type, policy }): Promise<RuleOptions> => {
      if (type !== 'string') return { pattern, type };
      return { pattern, type, policy: isNamed(policy) ? policy : await loadPolicy(policy) };
    }),
  );
}

async function loadPolicy(path: string): Promise<CustomPolicy> {
  const file = resolvePath(path);
  let source: string;
  let loaded: { readonly default?: unknown };
  try {
    source = await readFile(file, 'utf8');
    loaded = (await import(pathToFileURL(file).href)) as { readonly default?: unknown };
  } catch (cause) {
    throw new ConfigError(`--rule: the resolver ${path} can't be loaded: ${(cause as Error).message}`, {
      cause,
    });
  }
  if (typeof loaded.default !== 'function') {
    throw new ConfigError(
      `--rule: the resolver ${path} has no default export that is a function: write 'export default (siblings) => …'`,
    );
  }
  const name = basename(file, extname(file))
    .replace(/[^\w.-]/g, '_')
    .slice(0, 64);
  return { name, resolve: loaded.default as Resolver, source };
}

/** The division at the last `=TYPE` of a known type, so that both 'a=b=counter' and 'k=string:./a=b.mjs' are understood. */
function dividedLater(text: string): RegExpExecArray | null {
  return /^(.+)=(string|counter|set)(?::(.+))?$/s.exec(text);
}

function isType(type: string): type is RuleOptions['type'] {
  return Object.hasOwn(POLICIES, type);
}

function isNamed(policy: string): policy is PolicyName {
  return Object.hasOwn(resolvers, policy);
}
