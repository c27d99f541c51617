/** A process that launches a Valkey server, says where, and waits to be killed. */
import { launchValkey } from '../../src/valkey-server/launch.js';

const server = await launchValkey();
process.stdout.write(`${JSON.stringify({ port: server.port, pid: server.pid, dir: server.dir })}\n`);
setInterval(() => {}, 1000);
