import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseConfigFile, redactUrl, resolvePeerConfig } from '../src/config.js';
import { ConfigError } from '../src/errors.js';

const PEER_ID = '12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq';

describe('A peer’s settings', () => {
  it('have defaults that reach nobody but this machine', () => {
    assert.deepEqual(resolvePeerConfig({ region: 'eu' }), {
      region: 'eu',
      store: 'memory',
      listen: ['/ip4/127.0.0.1/tcp/0'],
      announce: null,
      peers: [],
      resp: { host: '127.0.0.1', port: 6380 },
      respPasswordFile: null,
      http: null,
      identityFile: null,
      meshKeyFile: null,
      allow: null,
      rules: [],
      whileLoading: 'refuse',
      loadingPatienceMs: 30_000,
      tombstoneGraceMs: 60_000,
      logLevel: 'info',
    });
  });

  it('take every flag', () => {
    const config = resolvePeerConfig({
      region: 'us-east.1',
      store: 'rediss://user:secret@cache.example:6390/0',
      listen: ['/ip4/0.0.0.0/tcp/4001', '/ip6/::/tcp/4001'],
      announce: ['/dns4/us.example/tcp/4001'],
      peer: [`/dns4/eu.example/tcp/4001/p2p/${PEER_ID}`],
      resp: '[::]:7001',
      'resp-password': '/run/resp',
      http: '8080',
      identity: '/run/identity',
      'mesh-key': '/run/mesh.key',
      allow: [PEER_ID],
      rule: ['user:*=string:lww', 'a=b=counter', 'tags:*=set', 'p:*=string:max', 'q=string:./longest.mjs'],
      'allow-flush': false,
      unreplicated: 'refuse',
      'while-loading': 'serve',
      'loading-patience': '1.5',
      'tombstone-grace': '0.5',
      'log-level': 'debug',
    });
    assert.deepEqual([config.whileLoading, config.loadingPatienceMs], ['serve', 1_500]);
    assert.equal(config.tombstoneGraceMs, 500);
    assert.deepEqual(config.resp, { host: '::', port: 7001 });
    assert.deepEqual(config.http, { host: '127.0.0.1', port: 8080 });
    assert.deepEqual(config.rules, [
      { pattern: 'user:*', type: 'string', policy: 'lww' },
      { pattern: 'a=b', type: 'counter', policy: 'sum' },
      { pattern: 'tags:*', type: 'set', policy: 'add-wins' },
      { pattern: 'p:*', type: 'string', policy: 'max' },
      { pattern: 'q', type: 'string', policy: './longest.mjs' },
    ]);
    assert.deepEqual(config.allow, [PEER_ID]);
    assert.equal(config.logLevel, 'debug');
  });

  it('can announce no address at all', () => {
    assert.deepEqual(resolvePeerConfig({ region: 'eu', announce: ['none'] }).announce, []);
    assert.deepEqual(
      resolvePeerConfig({ region: 'eu' }, { path: 'p.json', settings: { announce: [] } }).announce,
      [],
    );
  });

  it('from flags win over the file, and the file over the defaults', () => {
    const file = { path: 'p.json', settings: { region: 'eu', resp: '7001', peer: ['/ip4/127.0.0.1/tcp/1'] } };
    const config = resolvePeerConfig({ resp: '7002', peer: ['/ip4/127.0.0.1/tcp/2'] }, file);
    assert.equal(config.region, 'eu');
    assert.equal(config.resp.port, 7002);
    assert.deepEqual(config.peers, ['/ip4/127.0.0.1/tcp/2']);
  });

  const bad: readonly (readonly [settings: Record<string, unknown>, says: RegExp])[] = [
    [{}, /^--region is missing: .*--region eu/],
    [{ region: 'a b' }, /^--region "a b": use 1–64 characters/],
    [{ region: '' }, /^--region "": use 1–64 characters/],
    [{ region: 'eu', store: 'http://x' }, /^--store "http:\/\/x": give 'memory' or the URL/],
    [{ region: 'eu', store: 'ftp://me:secret@x' }, /^--store "ftp:\/\/\*\*\*@x"/],
    [{ region: 'eu', listen: ['4001'] }, /^--listen "4001": give a TCP multiaddr, for example/],
    [{ region: 'eu', listen: ['/ip4/300.0.0.1/tcp/1'] }, /^--listen "\/ip4\/300/],
    [{ region: 'eu', listen: ['/ip4/127.0.0.1/udp/1/quic'] }, /^--listen .* give a TCP multiaddr/],
    [{ region: 'eu', peer: ['/ip4/127.0.0.1/tcp/1', '/ip4/127.0.0.1/tcp/99999'] }, /^--peer ".*99999"/],
    [{ region: 'eu', peer: ['/ip4/127.0.0.1/tcp/1/p2p/bob'] }, /^--peer ".*bob"/],
    [{ region: 'eu', announce: ['here'] }, /^--announce "here": give a TCP multiaddr, .* or 'none'/],
    [{ region: 'eu', announce: ['none', '/ip4/1.2.3.4/tcp/1'] }, /^--announce .*'none' stands alone/],
    [{ region: 'eu', resp: 'localhost' }, /^--resp "localhost": give HOST:PORT/],
    [{ region: 'eu', resp: '127.0.0.1:70000' }, /^--resp "127.0.0.1:70000": give HOST:PORT/],
    [{ region: 'eu', http: ':::1' }, /^--http ":::1": give HOST:PORT/],
    [{ region: 'eu', identity: '' }, /^--identity "": give the path of a file/],
    [{ region: 'eu', allow: ['bob'] }, /^--allow "bob": give a PeerId/],
    [{ region: 'eu', allow: [] }, /^--allow \[\]: name at least one PeerId/],
    [{ region: 'eu', rule: ['x'] }, /^--rule "x": it isn't of the form PATTERN=TYPE/],
    [
      { region: 'eu', rule: ['x=set:fww'] },
      /^--rule "x=set:fww": the policy "fww" is unknown for the type set; use set:add-wins/,
    ],
    [{ region: 'eu', rule: ['x=string:foo'] }, /the policy "foo" is unknown .* use string:lww/],
    [{ region: 'eu', rule: ['x=hash'] }, /the type "hash" is not supported yet; use string, counter or set/],
    [{ region: 'eu', rule: ['x=blob'] }, /the type "blob" is unknown/],
    [{ region: 'eu', 'allow-flush': true }, /^--allow-flush true: is not supported yet/],
    [{ region: 'eu', unreplicated: 'local' }, /^--unreplicated "local": is not supported yet/],
    [{ region: 'eu', unreplicated: 'maybe' }, /^--unreplicated "maybe": give refuse/],
    [{ region: 'eu', 'log-level': 'loud' }, /^--log-level "loud": give one of debug/],
    [{ region: 'eu', regoin: 'x' }, /^--regoin: there is no such setting; the settings are region, /],
    [{ region: 'eu', resp: '0.0.0.0:7001' }, /^--resp 0.0.0.0:7001 can be reached .* --resp-password FILE/],
    [
      { region: 'eu', listen: ['/ip4/0.0.0.0/tcp/1'] },
      /^--listen \/ip4\/0.0.0.0\/tcp\/1 can .* add --mesh-key/,
    ],
    [{ region: 'eu', listen: ['/dns4/x/tcp/1'] }, /^--listen \/dns4\/x\/tcp\/1 can be reached/],
  ];
  for (const [settings, says] of bad) {
    it(`are refused when they are ${JSON.stringify(settings)}`, () => {
      assert.throws(
        () => resolvePeerConfig(settings),
        (error) => error instanceof ConfigError && error.code === 'CONFIG' && says.test(error.message),
      );
    });
  }

  it('of a file are refused with the file’s name', () => {
    const refused = (settings: Record<string, unknown>, says: RegExp) =>
      assert.throws(() => resolvePeerConfig({ region: 'eu' }, { path: '/etc/p.json', settings }), says);
    refused({ resp: 7001 }, /config file \/etc\/p.json, "resp" 7001: give HOST:PORT/);
    refused({ meshKey: 'x' }, /config file \/etc\/p.json, "meshKey": there is no such setting/);
    refused({ 'allow-flush': true }, /config file \/etc\/p.json, "allow-flush" true: is not supported yet/);
  });

  it('may open the mesh to other machines with a mesh key or an allow-list', () => {
    const open = { region: 'eu', listen: ['/ip4/0.0.0.0/tcp/4001'] };
    assert.equal(resolvePeerConfig({ ...open, 'mesh-key': 'k' }).meshKeyFile, 'k');
    assert.deepEqual(resolvePeerConfig({ ...open, allow: [PEER_ID] }).allow, [PEER_ID]);
  });
});

describe('A config file', () => {
  it('is one JSON object', () => {
    assert.deepEqual(parseConfigFile('{"region":"eu"}', 'p.json'), { region: 'eu' });
    assert.throws(() => parseConfigFile('{region', 'p.json'), /config file p.json: not valid JSON/);
    assert.throws(() => parseConfigFile('[]', 'p.json'), /config file p.json: must be one JSON object/);
    assert.throws(() => parseConfigFile('null', 'p.json'), ConfigError);
  });
});

describe('The URL of a store', () => {
  it('is shown without its password', () => {
    assert.equal(redactUrl('redis://user:p@s/s@host:1'), 'redis://***@host:1');
    assert.equal(redactUrl('redis://user:secret@host:1/0'), 'redis://***@host:1/0');
    assert.equal(redactUrl('redis://host:1'), 'redis://host:1');
  });
});
