/** `valkey-mesh verify`: has a running peer compare all regions, over its HTTP door; the exit code tells the outcome. */
import { ConfigError } from '../errors.js';
import { describeVerify } from '../verify/describe.js';
import { VERIFY_EXIT_CODES, type VerifyReport } from '../verify/report.js';

export interface VerifyFlags {
  /** The peer's HTTP door. */
  readonly url: string;
  readonly json?: boolean;
  readonly deep?: boolean;
  readonly repair?: boolean;
}

/** The peer sends something at least this often, however long it takes. */
const SILENCE_MS = 60_000;

/** Verifies and prints; gives the exit code. Throws ConfigError for a bad URL. A peer that doesn't answer as one is 'not verified' too. */
export async function verify(
  flags: VerifyFlags,
  print: (line: string) => void,
  complain: (line: string) => void,
): Promise<number> {
  const { url, json = false, deep = false, repair = false } = flags;
  if (!/^https?:\/\//.test(url) || !URL.canParse(url))
    throw new ConfigError(
      `--url ${JSON.stringify(url)}: give the URL of a peer's --http door, for example http://127.0.0.1:8080`,
    );
  const target = new URL('/api/verify', url);
  const found = await ask(target, JSON.stringify({ deep, repair }));
  if (typeof found === 'string') {
    complain(`not verified: ${found}`);
    return VERIFY_EXIT_CODES.unverified;
  }
  print(json ? JSON.stringify(found) : describeVerify(found));
  return VERIFY_EXIT_CODES[found.outcome];
}

/** Gives the report, or why there is none. */
async function ask(target: URL, body: string): Promise<VerifyReport | string> {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  try {
    const answer = await fetch(target, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
      signal: silence.signal,
    });
    let text = '';
    const decoder = new TextDecoder();
    for await (const chunk of answer.body ?? []) {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
      text = (text + decoder.decode(chunk as Uint8Array, { stream: true })).trimStart();
    }
    const found = JSON.parse(text) as Partial<VerifyReport> & { readonly error?: unknown };
    if (typeof found.error === 'string') return found.error;
    if (
      typeof found.outcome !== 'string' ||
      !(found.outcome in VERIFY_EXIT_CODES) ||
      !Array.isArray(found.regions)
    )
      return `${target} is not a peer's --http door: its answer isn't a verification`;
    return found as VerifyReport;
  } catch (cause) {
    if (cause instanceof SyntaxError) return `${target} is not a peer's --http door: its answer isn't JSON`;
    const inner = (cause as Error).cause as NodeJS.ErrnoException | undefined;
    const why = silence.signal.aborted
      ? `nothing for ${SILENCE_MS / 1_000} s`
      : (inner?.code ?? (cause as Error).message);
    return `no answer from ${target} (${why}); is the peer running, and with --http?`;
  } finally {
    clearTimeout(timer);
  }
}
