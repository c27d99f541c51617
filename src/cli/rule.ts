/**
 * Rules: `PATTERN=TYPE[:POLICY]` says how the keys that match a glob pattern resolve concurrent writes.
 *
 * This version resolves every key by its type's own conflict rule. A rule can state that rule, so that files written now
 * keep their meaning, and anything else is refused: a rule that is accepted and not followed would lose data quietly.
 */

/** A parsed rule. */
export interface Rule {
  readonly pattern: string;
  readonly type: RuleType;
  readonly policy: string;
}

export type RuleType = 'string' | 'counter' | 'set';

/** Each type's policies that work, the first being the default. */
const POLICIES: Readonly<Record<RuleType, readonly string[]>> = {
  string: ['lww'],
  counter: ['sum'],
  set: ['add-wins'],
};

/** Policies and types of the design that no code stands behind yet. */
const PLANNED = new Set(['fww', 'max', 'min', 'custom', 'hash', 'list', 'zset', 'stream']);

/** Parses a rule; a string is the reason why it can't be used. */
export function parseRule(text: string): Rule | string {
  const match = /^(.+)=([a-z]+)(?::([a-z-]+))?$/.exec(text);
  if (match === null)
    return "it isn't of the form PATTERN=TYPE[:POLICY]; write for example 'user:*=string:lww'";
  const [, pattern = '', type = '', policy] = match;
  if (!isRuleType(type)) {
    const why = PLANNED.has(type) ? 'is not supported yet' : 'is unknown';
    return `the type "${type}" ${why}; use string, counter or set`;
  }
  const known = POLICIES[type];
  if (policy !== undefined && !known.includes(policy)) {
    const why = PLANNED.has(policy) ? 'is not supported yet' : 'is unknown';
    return `the policy "${policy}" ${why} for the type ${type}; use ${type}:${known.join(` or ${type}:`)}`;
  }
  return { pattern, type, policy: policy ?? known[0]! };
}

function isRuleType(type: string): type is RuleType {
  return Object.hasOwn(POLICIES, type);
}
