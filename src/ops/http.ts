/**
 * The HTTP door for operators: is the process up, is the node ready, what is its status; metrics; and verification.
 *
 * GET /healthz: 200 while the process answers. GET /readyz: 200 when the node is ready, else 503 with the reason.
 * GET /api/status: {@link NodeStatus} as JSON. GET /metrics: see metrics.ts. POST /api/verify: see verify-route.ts. HEAD works on each GET; other methods get 405, other paths 404.
 */
import type { Server } from 'node:http';
import { createAdaptorServer } from '@hono/node-server';
import { type Context, Hono } from 'hono';
import type { Engine, NodeStatus } from '../engine.js';
import { ConfigError } from '../errors.js';
import { type Logger, silentLogger } from '../options.js';
import { describeLoading } from '../sync/loading.js';
import { Metrics } from './metrics.js';
import { verifyRoute } from './verify-route.js';

/** What the HTTP door needs of a node. */
export type HttpEngine = Pick<Engine, 'status'> & Partial<Pick<Engine, 'verify'>>;

export interface HttpOptions {
  /** Without `verify`, there is no /api/verify. */
  readonly engine: HttpEngine;
  /** Default: 127.0.0.1. */
  readonly host?: string;
  /** 0 lets the system choose. Default: 0. */
  readonly port?: number;
  /** Default: silent. */
  readonly logger?: Logger;
}

/** A running HTTP door. */
export interface HttpDoor {
  readonly port: number;
  /** Stops listening and closes every connection. */
  stop(): Promise<void>;
}

/** Starts the HTTP door. Rejects with ConfigError when the address can't be listened on. */
export async function startHttp(options: HttpOptions): Promise<HttpDoor> {
  const { engine, host = '127.0.0.1', port = 0, logger = silentLogger } = options;
  const app = routes(engine, logger);
  const server = createAdaptorServer({ fetch: app.fetch, hostname: host }) as Server;
  server.requestTimeout = 10_000;
  server.headersTimeout = 10_000;
  server.maxConnections = 256;
  await listen(server, host, port);
  server.on('error', (error) => logger.error({ err: error }, 'HTTP server error'));
  const bound = server.address();
  return {
    port: typeof bound === 'object' && bound !== null ? bound.port : port,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Why a node in this state can't serve. */
const REASONS: Readonly<Record<Exclude<NodeStatus['state'], 'ready'>, string>> = {
  starting: 'the node is starting',
  loading: 'the node lacks what the other members have',
  'store-unavailable': "the node can't reach its store",
  stopping: 'the node is stopping',
};

function routes(engine: HttpEngine, logger: Logger): Hono {
  const app = new Hono();
  const get = (path: string, answer: (context: Context) => Response | Promise<Response>) => {
    app.get(path, answer);
    app.all(path, (context) =>
      context.json({ error: `${context.req.method} is not allowed; use GET` }, 405, { Allow: 'GET, HEAD' }),
    );
  };
  get('/healthz', (context) => context.json({ status: 'up' }));
  get('/readyz', (context) => {
    const { state, loading } = engine.status();
    if (state === 'ready') return context.json({ status: 'ready' });
    const reason = loading === null ? REASONS[state] : `${REASONS[state]}: ${describeLoading(loading)}`;
    return context.json({ status: state, reason, ...(loading !== null && { loading }) }, 503);
  });
  get('/api/status', (context) => context.json(engine.status(), 200, { 'Cache-Control': 'no-store' }));
  const metrics = new Metrics(() => engine.status());
  get('/metrics', async (context) =>
    context.body(await metrics.scrape(), 200, {
      'Content-Type': metrics.contentType,
      'Cache-Control': 'no-store',
    }),
  );
  if (engine.verify !== undefined) {
    const verifying = { verify: engine.verify.bind(engine) };
    app.post('/api/verify', (context) => verifyRoute(verifying, context));
    app.all('/api/verify', (context) =>
      context.json({ error: `${context.req.method} is not allowed; use POST` }, 405, { Allow: 'POST' }),
    );
  }
  app.notFound((context) =>
    context.json(
      { error: `there is nothing at ${context.req.path}; try /healthz, /readyz, /metrics or /api/status` },
      404,
    ),
  );
  app.onError((error, context) => {
    logger.error({ err: error, path: context.req.path }, 'HTTP request failed');
    return context.json({ error: 'internal error; the log of the peer says more' }, 500);
  });
  return app;
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const why = cause.code === 'EADDRINUSE' ? 'the port is in use; choose another one' : cause.message;
      reject(new ConfigError(`--http ${host}:${port}: ${why}`, { cause }));
    });
    server.listen(port, host, () => {
      server.removeAllListeners('error');
      resolve();
    });
  });
}
