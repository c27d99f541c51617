/** All commands. One more command is one more entry in one of these tables. */
import type { Command } from '../command.js';
import { clientCommands } from './client.js';
import { connectionCommands } from './connection.js';
import { counterCommands } from './counters.js';
import { expiryCommands } from './expiry.js';
import { introspectionCommands } from './introspection.js';
import { keyCommands } from './keys.js';
import { meshCommands } from './mesh.js';
import { serverCommands } from './server.js';
import { setCommands } from './sets.js';
import { stringCommands } from './strings.js';
import { transactionCommands } from './transactions.js';

export const builtInCommands: readonly Command[] = [
  ...connectionCommands,
  ...clientCommands,
  ...introspectionCommands,
  ...stringCommands,
  ...counterCommands,
  ...setCommands,
  ...keyCommands,
  ...expiryCommands,
  ...transactionCommands,
  ...serverCommands,
  ...meshCommands,
];
