/**
 * Hears of a failover at once. After one in good order the old primary goes on taking writes for about ten seconds, until a
 * sentinel makes it a replica, and all of these are lost; so the node must not wait for it to say READONLY.
 */
import { Redis } from 'ioredis';
import { type HostPort, placeLabel, type Sentinels } from './valkey-address.js';

const CHANNEL = '+switch-master';
const RETRY_MS = 1000;

/** Subscriptions to all sentinels, made again when they break. What is missed meanwhile is found out by asking. */
export class SentinelWatch {
  readonly #clients: readonly Redis[];

  /** @param onPrimary told the place of the new primary, once by each sentinel */
  constructor(sentinels: Sentinels, onPrimary: (place: string) => void) {
    this.#clients = sentinels.places.map((place) => {
      const client = subscribe(sentinels, place);
      client.on('message', (_, message: string) => {
        // name, old host and port, new host and port
        const [name, , , host, port] = message.split(' ');
        if (name === sentinels.name && host !== undefined)
          onPrimary(placeLabel({ host, port: Number(port) }));
      });
      return client;
    });
  }

  stop(): void {
    for (const client of this.#clients) client.disconnect();
  }
}

function subscribe({ login, tls }: Sentinels, place: HostPort): Redis {
  const { username, password } = login;
  const client = new Redis({
    ...place,
    ...(username === null ? {} : { username }),
    ...(password === null ? {} : { password }),
    // Once, not at each reconnection: who asks for the primary reads the files anew, and says what is wrong with them.
    ...(tls === null ? {} : { tls: tls() }),
    retryStrategy: () => RETRY_MS,
    maxRetriesPerRequest: null,
    enableReadyCheck: false,
    disableClientInfo: true,
    protocol: 2,
  });
  // A sentinel that is away is no trouble as long as one answers when asked.
  client.on('error', () => {});
  client.subscribe(CHANNEL).catch(() => {});
  return client;
}
