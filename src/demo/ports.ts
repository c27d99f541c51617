/** Checks the demo's ports before anything starts, so that it never stops halfway with a port in use. */
import { type AddressInfo, createServer } from 'node:net';
import { StartError } from '../cli/start-error.js';
import { ConfigError } from '../errors.js';

/** A run of ports that a flag chose. */
export interface PortRange {
  readonly flag: string;
  readonly first: number;
  readonly count: number;
}

/** Throws ConfigError when the ranges overlap, StartError when a port is in use; both name the flag to change. */
export async function checkPorts(ranges: readonly PortRange[]): Promise<void> {
  const takenBy = new Map<number, string>();
  for (const { flag, first, count } of ranges) {
    for (let port = first; port < first + count; port += 1) {
      const other = takenBy.get(port);
      if (other !== undefined)
        throw new ConfigError(`${flag} ${first} overlaps with ${other}: port ${port} is in both; change one`);
      takenBy.set(port, flag);
    }
  }
  for (const [port, flag] of takenBy) {
    if (!(await isFree(port)))
      throw new StartError(`port ${port} on 127.0.0.1 is in use; choose other ports with ${flag}`);
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/** Finds ports of 127.0.0.1 that are free now, of the system's choice. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports = await Promise.all(
    servers.map(
      (server) =>
        new Promise<number>((resolve, reject) => {
          server.once('error', reject);
          server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port));
        }),
    ),
  );
  // Only now, so that no port is found twice.
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
