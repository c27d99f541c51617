/** A process that does nothing but open the Valkey at argv[2], and prints the code of the error. */
import { ValkeyStore } from '../../src/store/valkey.js';

const store = new ValkeyStore(process.argv[2] ?? '', { answerTimeoutMs: 400 });
const outcome = await store.open().then(
  () => 'OPEN',
  (error: { code: string }) => error.code,
);
process.stdout.write(`${outcome}\n`);
