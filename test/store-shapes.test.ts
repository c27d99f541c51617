/** The shapes in which people run Valkey, each on a real server: TLS, users, Unix sockets, IPv6, databases. Sentinels: faults-sentinel.test.ts. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { Redis } from 'ioredis';
import { createNode } from '../src/node.js';
import { ValkeyStore, type ValkeyStoreOptions } from '../src/store/valkey.js';
import type { ValkeyServerOptions } from '../src/store/valkey-address.js';
import { parseValkeyUrl } from '../src/store/valkey-url.js';
import { type LaunchedValkey, type LaunchOptions, launchValkey } from '../src/valkey-server/launch.js';
import { type Certificate, TestCa } from './support/certificates.js';
import { freePorts } from './support/process.js';
import { b, write } from './support/store-compliance.js';
import { waitFor } from './support/wait.js';

const endings: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});

async function server(options: LaunchOptions = {}): Promise<LaunchedValkey> {
  const launched = await launchValkey(options);
  endings.push(() => launched.stop());
  return launched;
}

function storeAt(at: string | ValkeyServerOptions, options: ValkeyStoreOptions = {}): ValkeyStore {
  const store = new ValkeyStore(at, options);
  endings.push(() => store.close());
  return store;
}

/** Opens a store, writes and reads. */
async function works(at: string | ValkeyServerOptions): Promise<ValkeyStore> {
  const store = storeAt(at);
  await store.open();
  const expected = (await store.load([{ key: b('k') }]))[0]!.header;
  await store.commit({ writes: [write('k', { expected, header: b('works') })] });
  assert.equal((await store.load([{ key: b('k') }]))[0]!.header, 'works');
  return store;
}

/** A client that may change the server's settings. */
function admin(valkey: LaunchedValkey): Redis {
  const made = new Redis(valkey.url, { retryStrategy: () => null });
  made.on('error', () => {});
  endings.push(() => made.disconnect());
  return made;
}

const hangUp = (client: Redis) => client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');

describe('a URL', () => {
  const none = { username: null, password: null };
  const cases: [string, object][] = [
    ['redis://h', { at: { host: 'h', port: 6379 }, login: none, tls: null, db: 0, label: 'h:6379' }],
    [
      'valkey://u:p%40@h:1/2',
      { at: { host: 'h', port: 1 }, login: { username: 'u', password: 'p@' }, db: 2 },
    ],
    ['redis://[::1]:7', { at: { host: '::1', port: 7 }, label: '[::1]:7' }],
    ['redis://:p@[fe80::1%eth0]', { at: { host: 'fe80::1%eth0', port: 6379 } }],
    ['/run/valkey.sock', { at: { path: '/run/valkey.sock' }, label: '/run/valkey.sock', db: 0 }],
    ['unix:///run/a%20b.sock?db=3', { at: { path: '/run/a b.sock' }, db: 3 }],
    ['redis+unix://u:p@/run/v', { at: { path: '/run/v' }, login: { username: 'u', password: 'p' } }],
    [
      'redis+sentinel://u:p@a:1,[::1]:2,c/main/4?sentinel-password=s',
      {
        at: {
          name: 'main',
          places: [
            { host: 'a', port: 1 },
            { host: '::1', port: 2 },
            { host: 'c', port: 26_379 },
          ],
          login: { username: null, password: 's' },
          tls: null,
        },
        login: { username: 'u', password: 'p' },
        db: 4,
        label: 'main (sentinels a:1, [::1]:2, c:26379)',
      },
    ],
  ];
  for (const [url, expected] of cases) {
    it(`says all that ${url.replace(/:\w*@/, ':…@')} holds`, () => {
      const address = parseValkeyUrl(url);
      for (const [name, value] of Object.entries(expected))
        assert.deepEqual(address[name as 'at'], value, name);
    });
  }

  it('that is not understood as a whole is refused, and not repeated', () => {
    const bad = [
      ['redis://a:s3cret@h,i', /several hosts.*redis\+cluster:/],
      ['redis://:s3cret@h?ca=x', /not understood: it takes none/],
      ['rediss://:s3cret@h?insecure=1', /takes ca, cert, key, servername/],
      ['rediss://:s3cret@h?ca', /ca without a value/],
      ['rediss://:s3cret@h?cert=x', /both cert and key/],
      ['redis+sentinel://:s3cret@h:1', /which primary/],
      ['redis+sentinel://:s3cret@h:1/m/n', /number of a database/],
      ['unix://host/s3cret', /names no socket/],
      ['redis://:s3cret@h/1/2', /number of a database/],
      ['redis://s3cret@h:0', /wrong port/],
      ['redis://s3cret@h:', /wrong port/],
    ] as const;
    for (const [url, said] of bad) {
      assert.throws(
        () => parseValkeyUrl(url),
        (error: Error & { code: string }) =>
          error.code === 'CONFIG' && said.test(error.message) && !error.message.includes('s3cret'),
        url,
      );
    }
  });
});

describe('a server', () => {
  it('on a Unix socket is reached by its path, its URL, and as an object', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'valkey-mesh-socket-'));
    endings.push(() => rmSync(dir, { recursive: true, force: true }));
    const path = join(dir, 'valkey.sock');
    const valkey = await server({ args: ['--unixsocket', path] });
    await admin(valkey).acl('SETUSER', 'app', 'on', '>pw', '~*', '+@all');
    for (const at of [path, `unix://${path}`, `redis+unix://app:pw@${path}?db=1`, { path, db: 2 }]) {
      const store = await works(at);
      assert.equal(store.describe().address, path);
    }
    const gone = storeAt(`${path}.gone`, { answerTimeoutMs: 200 });
    await assert.rejects(gone.open(), { code: 'STORE_UNAVAILABLE', message: /valkey\.sock\.gone.*ENOENT/ });
  });

  it('on IPv6 is reached by its address in brackets', async () => {
    const valkey = await server({ args: ['--bind', '127.0.0.1', '::1'] });
    const store = await works(`redis://[::1]:${valkey.port}`);
    assert.equal(store.describe().address, `[::1]:${valkey.port}`);
  });

  it('with several databases keeps a node in the one that is named', async () => {
    const valkey = await server();
    const node = await createNode({ region: 'eu', store: { port: valkey.port, db: 5 }, listen: [] });
    endings.push(() => node.stop());
    await node.register('k').set('v');
    const client = admin(valkey);
    assert.equal(await client.get('k'), null);
    await client.select(5);
    assert.equal(await client.get('k'), 'v');
    const message = /has no database 99: correct the number/;
    await assert.rejects(storeAt(`${valkey.url}/99`).open(), { code: 'CONFIG', message });
  });

  it('that knows users: a password that stops being right is reported, and the node goes on when it is right again', async () => {
    const valkey = await server();
    const client = admin(valkey);
    const user = (password: string) =>
      client.acl('SETUSER', 'app', 'on', 'resetpass', `>${password}`, '~*', '+@all');
    await user('first');
    const store = storeAt(`redis://app:first@127.0.0.1:${valkey.port}`, { answerTimeoutMs: 300 });
    await store.open();
    await user('second');
    await hangUp(client);
    const refused = {
      code: 'STORE_UNAVAILABLE',
      message: /refused the login: WRONGPASS.*check user and password/,
    };
    await assert.rejects(store.commit({ writes: [write('k')] }), refused);
    assert.match(String(store.describe().problem), /WRONGPASS/);
    await user('first');
    await waitFor(() => store.ping(), { what: 'the login' });
    await store.commit({ writes: [write('k')] });
    assert.equal(store.describe().problem, undefined);
  });
});

describe('a server with TLS', () => {
  let ca: TestCa;
  let stranger: TestCa;
  let good: Certificate;
  let expired: Certificate;
  let valkey: LaunchedValkey;
  let tlsPort: number;
  let url: string;

  before(async () => {
    [ca, stranger] = await Promise.all([TestCa.create(), TestCa.create('another CA')]);
    const served = await ca.issue('served');
    [good, expired] = [await ca.issue('good'), await ca.issue('expired', { expired: true })];
    tlsPort = await freePorts(1);
    valkey = await launchValkey({
      args: [
        ...['--tls-port', String(tlsPort), '--tls-ca-cert-file', ca.ca],
        ...['--tls-cert-file', served.cert, '--tls-key-file', served.key, '--tls-auth-clients', 'optional'],
      ],
    });
    url = `rediss://127.0.0.1:${tlsPort}`;
  });
  after(async () => {
    await valkey?.stop();
    ca?.remove();
    stranger?.remove();
  });

  /** Has the server show another certificate from now on. */
  const serve = async ({ cert, key }: Certificate) =>
    admin(valkey).call('CONFIG', 'SET', 'tls-cert-file', cert, 'tls-key-file', key);

  it('of an own CA is trusted when that CA is named, by file or as an option', async () => {
    await works(`${url}?ca=${ca.ca}`);
    await works({ host: 'localhost', port: tlsPort, tls: { ca: await readFile(ca.ca) } });
  });

  it('that is not trusted is refused with what to do', async () => {
    const refusals: [string, RegExp][] = [
      [url, /signed by a CA that is known here.*\?ca=FILE/],
      [`${url}?ca=${stranger.ca}`, /signed by a CA that is known here/],
      [`${url}?ca=${ca.ca}&servername=elsewhere.example`, /for another name.*servername=/],
      [`${url}?ca=/nowhere/ca.pem`, /ca=\/nowhere\/ca\.pem, which can't be read/],
      [`${url}?ca=${ca.ca}&cert=${ca.ca}&key=${ca.ca}`, /PEM files that belong together/],
    ];
    for (const [at, message] of refusals)
      await assert.rejects(storeAt(at).open(), { code: 'CONFIG', message }, at);
  });

  it('that speaks TLS where the URL does not say so, or the other way round, is named as a possible reason', async () => {
    const mixed = [`redis://127.0.0.1:${tlsPort}`, `rediss://127.0.0.1:${valkey.port}?ca=${ca.ca}`];
    for (const at of mixed) {
      const opening = storeAt(at, { answerTimeoutMs: 200 }).open();
      await assert.rejects(opening, { code: 'STORE_UNAVAILABLE', message: /do both sides speak TLS/ });
    }
  });

  it('that knows its clients wants a certificate, of its own CA, that has not expired', async () => {
    const client = admin(valkey);
    await client.config('SET', 'tls-auth-clients', 'yes');
    endings.push(() => client.config('SET', 'tls-auth-clients', 'optional'));
    await works(`${url}?ca=${ca.ca}&cert=${good.cert}&key=${good.key}`);
    const foreign = await stranger.issue('foreign');
    const refusals: [string, RegExp][] = [
      ['', /asks for a client certificate: give \?cert=FILE&key=FILE/],
      [`&cert=${foreign.cert}&key=${foreign.key}`, /does not accept the client certificate/],
      [`&cert=${expired.cert}&key=${expired.key}`, /client certificate has expired: renew/],
    ];
    for (const [more, message] of refusals) {
      await assert.rejects(storeAt(`${url}?ca=${ca.ca}${more}`).open(), { code: 'CONFIG', message });
    }
  });

  it('whose certificate expires is reported, and the node goes on when it is renewed', async () => {
    endings.push(() => serve(good));
    const store = storeAt(`${url}?ca=${ca.ca}`, { answerTimeoutMs: 300 });
    await store.open();
    await serve(expired);
    await hangUp(admin(valkey));
    const message = /server's certificate has expired: renew it there \(CERT_HAS_EXPIRED/;
    await assert.rejects(store.commit({ writes: [] }), { code: 'STORE_UNAVAILABLE', message });
    await assert.rejects(storeAt(`${url}?ca=${ca.ca}`).open(), { code: 'CONFIG', message });
    await serve(good);
    await waitFor(() => store.ping(), { what: 'the connection' });
    await store.commit({ writes: [] });
  });

  it('goes on with a client certificate that was renewed under the same file name', async () => {
    const client = admin(valkey);
    await client.config('SET', 'tls-auth-clients', 'yes');
    endings.push(() => client.config('SET', 'tls-auth-clients', 'optional'));
    const mine = await ca.issue('mine');
    const store = storeAt(`${url}?ca=${ca.ca}&cert=${mine.cert}&key=${mine.key}`, { answerTimeoutMs: 300 });
    await store.open();
    await ca.replace(mine, expired);
    await hangUp(client);
    await assert.rejects(store.commit({ writes: [] }), { message: /client certificate has expired/ });
    await ca.replace(mine, good);
    await waitFor(() => store.ping(), { what: 'the connection' });
    await store.commit({ writes: [] });
  });
});
