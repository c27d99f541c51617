/** The parts of a heartbeat that most tests don't care about. */
import type { Heartbeat } from '../../src/sync/messages.js';

export const NOTHING_ELSE = {
  atMs: 0,
  born: 0,
  held: [],
  members: [],
  forgotten: [],
  place: '',
  siblings: [],
} satisfies Partial<Heartbeat>;
