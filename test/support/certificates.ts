/** Certificates for tests of TLS, made with the `openssl` command when the test runs: a CA and what it signs, each valid as long as it is told. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Files of a certificate. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** A CA in a folder of its own. */
export class TestCa {
  readonly dir = mkdtempSync(join(tmpdir(), 'valkey-mesh-ca-'));
  readonly ca = join(this.dir, 'ca.pem');
  readonly #key = join(this.dir, 'ca.key');

  private constructor() {}

  /** Makes a CA. Throws, saying so, when there is no `openssl` command. */
  static async create(name = 'valkey-mesh test CA'): Promise<TestCa> {
    const made = new TestCa();
    try {
      await run('openssl', [
        ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
        ...['-keyout', made.#key, '-out', made.ca, '-days', '2', '-subj', `/CN=${name}`],
      ]);
    } catch (cause) {
      made.remove();
      throw new Error('the tests of TLS make their certificates with the openssl command: install openssl', {
        cause,
      });
    }
    return made;
  }

  /** Makes a certificate for `localhost` (and 127.0.0.1 when `ip`); an expired one ended an hour ago. */
  async issue(
    name: string,
    options: { expired?: boolean; host?: string; ip?: boolean } = {},
  ): Promise<Certificate> {
    const { expired = false, host = 'localhost', ip = true } = options;
    const file = (kind: string) => join(this.dir, `${name}.${kind}`);
    const [key, request, cert] = [file('key'), file('csr'), file('pem')];
    await run('openssl', [
      ...['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
      ...['-keyout', key, '-out', request, '-subj', `/CN=${name}`],
    ]);
    // `openssl ca` is the one command of OpenSSL 1.1 to 3.3 that takes dates in the past.
    const at = (offsetMs: number) =>
      `${new Date(Date.now() + offsetMs).toISOString().slice(2, 19).replace(/[-:T]/g, '')}Z`;
    const hour = 3_600_000;
    writeFileSync(file('index'), '');
    writeFileSync(
      file('cnf'),
      [
        '[ca]',
        'default_ca = it',
        '[it]',
        `new_certs_dir = ${this.dir}`,
        `database = ${file('index')}`,
        `rand_serial = yes`,
        'default_md = sha256',
        'policy = any',
        'unique_subject = no',
        'x509_extensions = names',
        '[any]',
        'commonName = supplied',
        '[names]',
        `subjectAltName = DNS:${host}${ip ? ', IP:127.0.0.1' : ''}`,
        '',
      ].join('\n'),
    );
    await run('openssl', [
      ...['ca', '-batch', '-notext', '-config', file('cnf'), '-cert', this.ca, '-keyfile', this.#key],
      ...['-in', request, '-out', cert],
      ...['-startdate', at(-48 * hour), '-enddate', at(expired ? -hour : 24 * hour)],
    ]);
    return { cert, key };
  }

  /** Puts another certificate in the place of one, under the same names. */
  async replace(old: Certificate, by: Certificate): Promise<void> {
    await copyFile(by.key, old.key);
    await copyFile(by.cert, old.cert);
  }

  remove(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}
