/** The demo's story: write everywhere, cut a region off, write on both sides, heal, and see that all regions are equal. */
import { Redis } from 'ioredis';
import { StartError } from '../cli/start-error.js';
import type { Terminal } from './terminal.js';
import type { DemoRegion, World } from './world.js';

/** How long the regions may take to connect, to notice a cut and to converge. */
const DEADLINE_MS = 60_000;

/** What a region holds, as its clients see it. */
interface View {
  readonly greeting: string | null;
  readonly visits: string | null;
  readonly cities: readonly string[];
}

/** Tells the story. Rejects with StartError when the regions don't converge in time. */
export async function tellStory(
  world: World,
  regions: readonly DemoRegion[],
  terminal: Terminal,
): Promise<void> {
  const clients = regions.map(({ resp }) => connectTo(resp.port));
  try {
    await new Story(world, regions, clients, terminal).tell();
  } finally {
    for (const client of clients) client.disconnect();
  }
}

class Story {
  readonly #world: World;
  readonly #regions: readonly DemoRegion[];
  readonly #clients: readonly Redis[];
  readonly #terminal: Terminal;

  constructor(world: World, regions: readonly DemoRegion[], clients: readonly Redis[], terminal: Terminal) {
    this.#world = world;
    this.#regions = regions;
    this.#clients = clients;
    this.#terminal = terminal;
  }

  async tell(): Promise<void> {
    const last = this.#regions.length - 1;
    const cutOff = this.#regions[last]!.name;
    await this.#waitForLinks(() => this.#regions.length - 1, 'the regions to find each other');

    this.#terminal.heading('1. Every region takes writes, with any Redis or Valkey client');
    await this.#run(0, 'SET', 'greeting', 'hello from eu');
    const cities = ['Berlin', 'Austin', 'Tokyo', 'Lima', 'Cairo', 'Dubai', 'Perth', 'Delhi'];
    for (const at of this.#regions.keys()) {
      await this.#run(at, 'INCRBY', 'visits', '10');
      await this.#run(at, 'SADD', 'cities', cities[at]!);
    }
    await this.#converge('after the last write', {
      greeting: 'hello from eu',
      visits: String(10 * this.#regions.length),
      cities: cities.slice(0, this.#regions.length).toSorted(),
    });
    await this.#showViews();
    await this.#showNative();

    this.#terminal.heading(`2. ${cutOff} is cut off: every link to it is broken`);
    this.#world.cut(last);
    await this.#waitForLinks(
      (at) => (at === last ? 0 : this.#regions.length - 2),
      'the regions to notice the cut',
    );
    this.#terminal.line('   Both sides go on taking writes, to the same keys:');
    await this.#run(0, 'SET', 'greeting', 'written in eu');
    await this.#run(last, 'SET', 'greeting', `written in ${cutOff}, later`);
    await this.#run(0, 'INCRBY', 'visits', '5');
    await this.#run(last, 'INCRBY', 'visits', '100');
    await this.#run(0, 'SREM', 'cities', 'Berlin');
    await this.#run(last, 'SADD', 'cities', 'Berlin', 'Paris');
    await until('the regions that are not cut off to agree', async () => {
      const digests = await Promise.all(this.#clients.slice(0, last).map(digestOf));
      return digests.every((each) => each === digests[0]) ? true : null;
    });
    this.#terminal.line('   So they differ:');
    await this.#showViews();

    this.#terminal.heading(`3. ${cutOff} is back`);
    this.#world.heal();
    await this.#converge('after the links came back', {
      greeting: `written in ${cutOff}, later`,
      visits: String(10 * this.#regions.length + 105),
      cities: [...cities.slice(0, this.#regions.length), 'Paris'].toSorted(),
    });
    await this.#showViews();
    this.#terminal.line(
      '   greeting: the later write won. visits: every increment counted once. cities: the add of Berlin',
    );
    this.#terminal.line('   won over the concurrent removal, and Paris came along.');
  }

  /** Runs a command in a region and shows it with its reply. */
  async #run(at: number, command: string, ...args: string[]): Promise<void> {
    const reply: unknown = await this.#clients[at]!.call(command, ...args);
    const shown = [command, ...args.map((arg) => (arg.includes(' ') ? JSON.stringify(arg) : arg))].join(' ');
    this.#terminal.line(`   ${this.#regions[at]!.name}> ${shown}  ${this.#terminal.dim(String(reply))}`);
  }

  /** Waits until every region holds `expected` and all digests are equal, and says how long it took from now on. */
  async #converge(since: string, expected: View): Promise<void> {
    const sinceMs = performance.now();
    const wanted = JSON.stringify(expected);
    const digest = await until('the regions to converge', async () => {
      const views = await Promise.all(this.#clients.map(viewOf));
      if (views.some((view) => JSON.stringify(view) !== wanted)) return null;
      const digests = await Promise.all(this.#clients.map(digestOf));
      return digests.every((each) => each === digests[0]) ? digests[0]! : null;
    });
    const tookMs = Math.round(performance.now() - sinceMs);
    const equal = `all ${this.#regions.length} digests are equal: ${digest}`;
    this.#terminal.line(this.#terminal.good(`   Converged ${tookMs} ms ${since}; ${equal}`));
  }

  async #showViews(): Promise<void> {
    const views = await Promise.all(this.#clients.map(viewOf));
    const rows = views.map(({ greeting, visits, cities }, at) => [
      this.#regions[at]!.name,
      String(greeting),
      String(visits),
      cities.join(' '),
    ]);
    this.#terminal.table([['region', 'greeting', 'visits', 'cities'], ...rows]);
  }

  /** Reads each region's own Valkey without the peer in between: the values are plain Valkey values there. */
  async #showNative(): Promise<void> {
    if (this.#regions[0]!.valkeyPort === null) return;
    this.#terminal.line("   The same in each region's own Valkey, read directly: plain strings, plain sets");
    const rows: string[][] = [['valkey', 'GET greeting', 'GET visits', 'SMEMBERS cities']];
    for (const { name, valkeyPort } of this.#regions) {
      const client = connectTo(valkeyPort!);
      try {
        const view = await viewOf(client);
        rows.push([
          `${name} :${valkeyPort}`,
          String(view.greeting),
          String(view.visits),
          view.cities.join(' '),
        ]);
      } finally {
        client.disconnect();
      }
    }
    this.#terminal.table(rows);
  }

  /** Waits until each region is connected to as many others as `count` says. */
  async #waitForLinks(count: (at: number) => number, what: string): Promise<void> {
    await until(what, async () => {
      const all = await Promise.all(this.#regions.map((region) => region.status()));
      const right = all.every(
        ({ state, peers }, at) =>
          state === 'ready' && peers.filter((peer) => peer.connected).length === count(at),
      );
      return right ? true : null;
    });
  }
}

function connectTo(port: number): Redis {
  const client = new Redis({ host: '127.0.0.1', port, maxRetriesPerRequest: 2 });
  // A failed command says it by itself.
  client.on('error', () => {});
  return client;
}

async function viewOf(client: Redis): Promise<View> {
  const [greeting, visits, cities] = await Promise.all([
    client.get('greeting'),
    client.get('visits'),
    client.smembers('cities'),
  ]);
  return { greeting, visits, cities: cities.toSorted() };
}

async function digestOf(client: Redis): Promise<string> {
  const reply = JSON.stringify(await client.call('MESH', 'DIGEST'));
  return /\b[0-9a-f]{12}\b/.exec(reply)?.[0] ?? reply;
}

/** Asks again and again until there is an answer. */
async function until<T>(what: string, ask: () => Promise<T | null>): Promise<T> {
  const deadline = performance.now() + DEADLINE_MS;
  for (;;) {
    const answer = await ask();
    if (answer !== null) return answer;
    if (performance.now() > deadline)
      throw new StartError(`waited ${DEADLINE_MS / 1_000} s for ${what}, in vain`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
