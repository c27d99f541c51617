/**
 * POST /api/verify: verifies, with the body's options as JSON: { deep, repair, timeoutMs }. The answer is the report as JSON; while it is
 * under way spaces come, so that nobody takes it for dead. What can't be verified is { error }, with status 400 when the
 * options are to blame; once spaces have been sent the status is 200.
 *
 * Only a body of type application/json is taken: a page in an operator's browser can't send that to another origin.
 */
import type { Context } from 'hono';
import type { Engine } from '../engine.js';
import { ArgumentError } from '../errors.js';
import type { VerifyOptions } from '../verify/report.js';

const MAX_BODY = 1_024;
const BEAT_MS = 5_000;

export async function verifyRoute(engine: Pick<Engine, 'verify'>, context: Context): Promise<Response> {
  if (!/^application\/json\b/.test(context.req.header('content-type') ?? ''))
    return context.json({ error: 'send the options as application/json, {} for none' }, 415);
  let options: VerifyOptions;
  try {
    options = parseOptions(await context.req.text());
  } catch (error) {
    return context.json({ error: (error as Error).message }, 400);
  }
  const encoder = new TextEncoder();
  let beat: NodeJS.Timeout | undefined;
  const body = new ReadableStream<Uint8Array>({
    async start(controller) {
      beat = setInterval(() => controller.enqueue(encoder.encode(' ')), BEAT_MS);
      beat.unref();
      let answer: unknown;
      try {
        answer = await engine.verify(options);
      } catch (error) {
        answer = { error: (error as Error).message };
      }
      clearInterval(beat);
      try {
        controller.enqueue(encoder.encode(JSON.stringify(answer)));
        controller.close();
      } catch {
        // Whoever asked is gone.
      }
    },
    cancel: () => clearInterval(beat),
  });
  return new Response(body, {
    headers: { 'Content-Type': 'application/json; charset=UTF-8', 'Cache-Control': 'no-store' },
  });
}

function parseOptions(body: string): VerifyOptions {
  if (body.length > MAX_BODY) throw new ArgumentError(`the options are longer than ${MAX_BODY} characters`);
  let given: unknown;
  try {
    given = JSON.parse(body);
  } catch {
    throw new ArgumentError('the options are not JSON');
  }
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    throw new ArgumentError('the options must be an object: { "deep": true }');
  for (const [name, value] of Object.entries(given)) {
    const wanted = { deep: 'boolean', repair: 'boolean', timeoutMs: 'number' }[name];
    if (wanted === undefined)
      throw new ArgumentError(`there is no option '${name.slice(0, 64)}': deep, repair, timeoutMs`);
    if (typeof value !== wanted) throw new ArgumentError(`${name} must be a ${wanted}`);
  }
  return given;
}
