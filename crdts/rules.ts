/**
 * Rules: key pattern → type and policy. The first rule that matches a key holds; a key that none matches may be of any type,
 * its strings last-write-wins.
 *
 * All members of a mesh must have the same rules, so each tells its fingerprint: it covers patterns, types, policies and
 * the source text of custom resolvers. Rules guide local operations and reading only; joins don't know them.
 */
import type { ByteString } from './bytes.js';
import { utf8 } from './bytes.js';
import { memberDigest } from './digest.js';
import { ArgumentError, NotAnIntegerError, RuleError } from './errors.js';
import { globMatches } from './glob.js';
import { parseInt64 } from './integer.js';
import { type PolicyName, type Resolver, resolvers } from './policy.js';

/** A resolver of the user's own. */
export interface CustomPolicy {
  /** What it is called in reports. */
  readonly name: string;
  readonly resolve: Resolver;
  /** What stands for the resolver in the fingerprint. Default: the function's source text. */
  readonly source?: string;
}

/** What a user writes. */
export interface RuleOptions {
  /** Valkey's glob syntax, over the key's bytes. */
  readonly pattern: string;
  /** Keys that match may hold only this. A counter is a string that holds an integer. */
  readonly type: 'string' | 'counter' | 'set';
  /** For strings. Default: 'lww'. */
  readonly policy?: PolicyName | CustomPolicy;
}

/** How one key behaves. */
export interface Rule {
  readonly type: 'string' | 'counter' | 'set' | 'any';
  /** 'lww', 'fww', 'max', 'min', or a custom policy's name. */
  readonly policy: string;
  /** Chooses among concurrent writes when they are read. */
  readonly resolve: Resolver;
  /** True: a write to a key that has a value is refused. */
  readonly firstWriteWins: boolean;
  /** True: the compact register; false: concurrent writes are kept until one sees them. */
  readonly compact: boolean;
}

const ANY: Rule = {
  type: 'any',
  policy: 'lww',
  resolve: resolvers.lww,
  firstWriteWins: false,
  compact: true,
};

const NAMES: ReadonlySet<string> = new Set(Object.keys(resolvers));

/** A checked list of rules. */
export class Rules {
  readonly #rules: readonly { readonly pattern: ByteString; readonly rule: Rule }[];
  /** Equal where the rules are; 24 hex digits. */
  readonly fingerprint: string;

  /** Throws ArgumentError when a rule isn't of the documented form. */
  constructor(options: readonly RuleOptions[] = []) {
    this.#rules = options.map((given, index) => ({
      pattern: utf8(given.pattern),
      rule: toRule(given, index),
    }));
    const text = JSON.stringify(
      options.map(({ pattern, type, policy }) => [pattern, type, sourceOf(policy)]),
    );
    this.fingerprint = fingerprint(text);
  }

  /** The rule that holds for a key. */
  of(key: ByteString): Rule {
    for (const { pattern, rule } of this.#rules) if (globMatches(pattern, key)) return rule;
    return ANY;
  }
}

/** Throws RuleError where a rule doesn't let SET write, NotAnIntegerError where it wants an integer and this is none. */
export function requireWritable(rule: Rule, value: ByteString): void {
  if (rule.type === 'set') throw new RuleError('the rule for this key says that it holds a set');
  if (rule.type === 'counter' && parseInt64(value) === null) throw new NotAnIntegerError();
}

/** Throws RuleError where a rule doesn't let INCRBY and INCRBYFLOAT count. */
export function requireCountable(rule: Rule): void {
  if (rule.type === 'set') throw new RuleError('the rule for this key says that it holds a set');
  if (!rule.compact)
    throw new RuleError(`the rule for this key (${rule.policy}) takes whole values: write it with SET`);
}

/** Throws RuleError where a rule doesn't let SADD add members. */
export function requireMembers(rule: Rule): void {
  if (rule.type !== 'any' && rule.type !== 'set')
    throw new RuleError(`the rule for this key says that it holds a ${rule.type}`);
}

function toRule(given: RuleOptions, index: number): Rule {
  const { pattern, type, policy = 'lww' } = given;
  const where = `rule ${index + 1}`;
  if (typeof pattern !== 'string' || pattern === '')
    throw new ArgumentError(`${where}: the pattern must be a glob, such as user:*`);
  if (type !== 'string' && type !== 'counter' && type !== 'set') {
    throw new ArgumentError(`${where}: the type ${String(type)} must be string, counter or set`);
  }
  if (type !== 'string' && given.policy !== undefined) {
    throw new ArgumentError(`${where}: only strings have a policy; a ${type} resolves by its own rule`);
  }
  if (typeof policy === 'string') {
    if (!NAMES.has(policy))
      throw new ArgumentError(
        `${where}: the policy ${policy} must be one of ${[...NAMES].join(', ')}, or a function`,
      );
    return {
      type,
      policy,
      resolve: resolvers[policy],
      firstWriteWins: policy === 'fww',
      compact: policy === 'lww',
    };
  }
  if (
    typeof policy.resolve !== 'function' ||
    typeof policy.name !== 'string' ||
    !/^[\w.-]{1,64}$/.test(policy.name)
  ) {
    throw new ArgumentError(
      `${where}: a custom policy needs a name (1 to 64 letters, digits, _ . -) and a function`,
    );
  }
  if (NAMES.has(policy.name))
    throw new ArgumentError(`${where}: the name ${policy.name} is taken: choose another for your policy`);
  return { type, policy: policy.name, resolve: policy.resolve, firstWriteWins: false, compact: false };
}

function sourceOf(policy: RuleOptions['policy'] = 'lww'): unknown {
  return typeof policy === 'string' ? policy : [policy.name, policy.source ?? policy.resolve.toString()];
}

/** Tells rules apart by accident, not against a forger: members are authenticated otherwise. */
function fingerprint(source: string): string {
  const part = (salt: number): string =>
    memberDigest(utf8(source), utf8('rules'), [{ replica: 'rules', stamp: salt }])
      .toString(16)
      .padStart(12, '0');
  return part(1) + part(2);
}
