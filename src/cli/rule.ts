/** Rules as they are written on the command line and in the config file: `PATTERN=TYPE[:POLICY]`. */
import { type PolicyName, resolvers } from '../../crdts/policy.js';
import type { RuleOptions } from '../../crdts/rules.js';

const TYPES = ['string', 'counter', 'set'] as const;
/** Types of the design that no code stands behind yet. */
const PLANNED = new Set(['hash', 'list', 'zset', 'stream']);

/** Parses a rule; a string is the reason why it can't be used. */
export function parseRule(text: string): RuleOptions | string {
  // The last '=' divides: a pattern may hold others.
  const match = /^(.+)=([a-z]+)(?::([a-z-]+))?$/s.exec(text);
  if (match === null)
    return "it isn't of the form PATTERN=TYPE[:POLICY]; write for example 'user:*=string:lww'";
  const [, pattern = '', named = '', policy] = match;
  const type = TYPES.find((each) => each === named);
  if (type === undefined) {
    const why = PLANNED.has(named) ? 'is not supported yet' : 'is unknown';
    return `the type "${named}" ${why}; use ${TYPES.join(', ')}`;
  }
  if (policy === undefined) return { pattern, type };
  if (type !== 'string') return `only strings have a policy; write '${pattern}=${type}'`;
  if (!isPolicy(policy)) {
    const why = policy === 'custom' ? 'needs code: give it to createNode' : 'is unknown';
    return `the policy "${policy}" ${why}; use ${Object.keys(resolvers).join(', ')}`;
  }
  return { pattern, type, policy };
}

function isPolicy(policy: string): policy is PolicyName {
  return Object.hasOwn(resolvers, policy);
}
