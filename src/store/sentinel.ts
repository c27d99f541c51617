/**
 * Asks sentinels where the primary is now.
 *
 * All are asked at once. One that was cut off may still name the primary of before the last failover, so the answer with the
 * highest configuration epoch counts, among those that come within a moment of the first.
 */
import { ConfigError } from '../errors.js';
import type { Timers } from '../timers.js';
import { type HostPort, placeLabel, type Sentinels } from './valkey-address.js';
import { loginProblem, tlsProblem } from './valkey-errors.js';
import { bytesOf, listOf, ServerReplyError, ValkeyLink } from './valkey-link.js';

/** How long slower sentinels are waited for, once one has answered. */
const OTHERS_MS = 200;

interface Answer {
  readonly place: HostPort;
  readonly epoch: number;
}

/**
 * Finds the primary. Throws ConfigError when the sentinels don't know its name or refuse the login, another error when
 * none of them answers within `timeoutMs`.
 */
export async function findPrimary(
  sentinels: Sentinels,
  timers: Timers,
  timeoutMs: number,
): Promise<HostPort> {
  const answers: Answer[] = [];
  const problems: Error[] = [];
  const links: ValkeyLink[] = [];
  let cancel = timers.after(timeoutMs, () => done());
  let done: () => void = () => {};
  const over = new Promise<void>((resolve) => {
    done = resolve;
  });
  const asked = sentinels.places.map(async (place) => {
    try {
      const answer = await ask(sentinels, place, timeoutMs, links);
      if (answers.push(answer) > 1) return;
      cancel();
      cancel = timers.after(OTHERS_MS, () => done());
    } catch (error) {
      problems.push(error as Error);
    }
  });
  await Promise.race([over, Promise.all(asked)]);
  cancel();
  for (const link of links) link.close();
  const best = answers.reduce<Answer | null>(
    (one, two) => (one !== null && one.epoch >= two.epoch ? one : two),
    null,
  );
  if (best !== null) return best.place;
  const wrong = problems.find((problem) => problem instanceof ConfigError);
  if (wrong !== undefined) throw wrong;
  const reasons = problems.map(({ message }) => message).join('; ');
  throw new Error(`no sentinel answers: ${reasons || `none within ${timeoutMs} ms`}`);
}

async function ask(
  sentinels: Sentinels,
  place: HostPort,
  timeoutMs: number,
  links: ValkeyLink[],
): Promise<Answer> {
  const label = placeLabel(place);
  const link = new ValkeyLink(place, sentinels.tls?.() ?? null, timeoutMs, () => {});
  links.push(link);
  const { username, password } = sentinels.login;
  try {
    await link.connect();
    if (password !== null) await link.send('AUTH', username === null ? [password] : [username, password]);
    const flat = listOf(await link.send('SENTINEL', ['MASTER', sentinels.name])).map(bytesOf);
    const fields = new Map<string, string>();
    for (let i = 0; i < flat.length; i += 2) fields.set(String(flat[i]), String(flat[i + 1]));
    const [host, port] = [fields.get('ip'), Number(fields.get('port'))];
    if (host === undefined || !(port > 0)) throw new Error('it gave no address');
    return { place: { host, port }, epoch: Number(fields.get('config-epoch')) || 0 };
  } catch (error) {
    if (error instanceof ServerReplyError && /no such master/i.test(error.message)) {
      throw new ConfigError(
        `the sentinel at ${label} knows no primary named ${sentinels.name}: correct the name in the store's URL`,
      );
    }
    throw (
      loginProblem(error, label, 'sentinel') ??
      tlsProblem(link.lastError ?? error, label) ??
      new Error(`${label}: ${(error as Error).message}`)
    );
  } finally {
    link.close();
  }
}
