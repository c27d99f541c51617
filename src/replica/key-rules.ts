/** Rules at work in a replica: which rule holds for a key, and what a key's concurrent values come to. */
import { type ByteString, text } from '../../crdts/bytes.js';
import { resolve, resolvers, type SiblingValue, siblingsOf, type ValuesState } from '../../crdts/policy.js';
import type { Rule, Rules } from '../../crdts/rules.js';
import type { Logger } from '../options.js';

export class KeyRules {
  readonly #rules: Rules;
  readonly #logger: Logger;
  /** Region that this replica writes in. */
  readonly region: ByteString;
  /** How often a resolver failed. */
  failures = 0;

  constructor(rules: Rules, region: string, logger: Logger) {
    this.#rules = rules;
    this.#logger = logger;
    this.region = region as ByteString;
  }

  of(key: ByteString): Rule {
    return this.#rules.of(key);
  }

  /**
   * The visible value of a key whose concurrent writes are kept side by side. A resolver that throws, or gives no byte
   * string, is reported, and the latest write stands in: it fails in the same way everywhere, so regions still agree.
   */
  readonly resolve = (key: ByteString, values: ValuesState): ByteString => {
    const rule = this.#rules.of(key);
    const siblings: readonly SiblingValue[] = siblingsOf(values);
    try {
      return resolve(siblings, rule.resolve);
    } catch (error) {
      this.failures += 1;
      this.#logger.error(
        { err: error as Error, key: text(key), policy: rule.policy },
        'a resolver failed: the latest write stands in',
      );
      return resolvers.lww(siblings);
    }
  };
}
