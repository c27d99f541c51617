/** What writes cost: wall clock, and the processor time of this process and of a Valkey. */
import type { Redis } from 'ioredis';

/** What one run cost: seconds, and microseconds of processor time per write. */
export interface Cost {
  readonly seconds: number;
  readonly process: number;
  readonly server: number;
}

/** Runs `writes` writes with so many under way. */
export async function drive(
  writes: number,
  inFlight: number,
  write: (i: number) => Promise<unknown>,
): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < writes) await write(next++);
  };
  await Promise.all(Array.from({ length: Math.min(inFlight, writes) }, worker));
}

/** Processor seconds that the server has used. */
async function serverSeconds(admin: Redis): Promise<number> {
  let sum = 0;
  for (const [, seconds] of (await admin.info('cpu')).matchAll(/^used_cpu_(?:sys|user):([\d.]+)/gm))
    sum += Number(seconds);
  return sum;
}

/** Does the work, from clean memory where `gc` is exposed, and tells its cost per write. */
export async function timed(admin: Redis, writes: number, work: () => Promise<void>): Promise<Cost> {
  globalThis.gc?.();
  const server = await serverSeconds(admin);
  const cpu = process.cpuUsage();
  const begun = performance.now();
  await work();
  const seconds = (performance.now() - begun) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  return {
    seconds,
    process: (user + system) / writes,
    server: (((await serverSeconds(admin)) - server) / writes) * 1e6,
  };
}
