/** The modes of the simulation: which troubles go together, and how many of the seeds that are asked for each mode runs. */
import type { Troubles } from './simulated-run.js';

export interface Mode {
  readonly title: string;
  readonly troubles: Troubles;
  /** Of the seeds that are asked for, how many. Default: all. */
  readonly share?: number;
}

export const MODES: Readonly<Record<string, Mode>> = {
  network: {
    title: 'regions converge to the model’s answer through loss, duplication, reordering and partitions',
    troubles: {},
  },
  crashes: {
    title: 'nothing acknowledged is lost and nothing counts twice when members crash and stores fail',
    troubles: { crashes: true, storeFaults: true },
  },
  late: {
    title: 'four regions converge though one joins late, logs are trimmed and memory is short',
    troubles: {
      regions: ['a', 'b', 'c', 'd'],
      late: 'd',
      crashes: true,
      trimmedLogs: true,
      node: { recentFramesBytes: 2_000, heldBackBytes: 65_536, maxLogBytes: 65_536 },
    },
    share: 0.3,
  },
  'lost-running': {
    title: 'nothing is lost when stores fall back to older data under running nodes',
    troubles: { lostData: 'running' },
    share: 0.4,
  },
  'lost-ever': {
    title: 'regions agree on what is left when stores fall back to older data at any time',
    troubles: { crashes: true, storeFaults: true, lostData: 'ever' },
    share: 0.4,
  },
  'lost-one': {
    title: 'what another region had applied is back when one region’s store falls back at any time',
    troubles: { crashes: true, lostData: 'ever', losers: ['a'] },
    share: 0.3,
  },
  forget: {
    title:
      'what is left of deleted keys is forgotten, and nothing comes back, when members crash and stores fail',
    troubles: {
      crashes: true,
      storeFaults: true,
      forgets: true,
      steps: 240,
      node: { tombstoneGraceMs: 500, antiEntropyMs: 1_000 },
    },
    share: 0.2,
  },
  'forget-late': {
    title: 'what was deleted stays so though a region joins late, logs are trimmed and memory is short',
    troubles: {
      regions: ['a', 'b', 'c', 'd'],
      late: 'd',
      crashes: true,
      trimmedLogs: true,
      forgets: true,
      steps: 240,
      node: {
        tombstoneGraceMs: 500,
        antiEntropyMs: 1_000,
        recentFramesBytes: 2_000,
        heldBackBytes: 65_536,
        maxLogBytes: 65_536,
      },
    },
    share: 0.1,
  },
  outcasts: {
    title: 'regions agree when members are forgotten and return',
    troubles: { crashes: true, outcasts: true, forgets: true, steps: 240, node: { tombstoneGraceMs: 500 } },
    share: 0.1,
  },
  ahead: {
    title: 'regions converge though a clock is ahead within the allowed drift',
    troubles: { crashes: true, aheadMs: { a: 20_000 } },
    share: 0.2,
  },
  'too-far-ahead': {
    title: 'regions converge though a clock is ahead by more than the allowed drift',
    troubles: { crashes: true, aheadMs: { a: 7_000 }, node: { maxDriftMs: 1_000 } },
    share: 0.2,
  },
  siblings: {
    title: 'two nodes on one store lose nothing and count nothing twice when members crash and stores fail',
    troubles: {
      regions: ['a', 'a2', 'b', 'c'],
      shares: { a2: 'a' },
      crashes: true,
      storeFaults: true,
    },
    share: 0.06,
  },
  'siblings-lost': {
    title: 'nothing is lost when the store of two running nodes falls back to older data',
    troubles: { regions: ['a', 'a2', 'b', 'b2'], shares: { a2: 'a', b2: 'b' }, lostData: 'running' },
    share: 0.05,
  },
  'siblings-forget': {
    title:
      'one node goes on for another one on its store that dies, trims its log, and forgets what was deleted',
    troubles: {
      regions: ['a', 'a2', 'b', 'c'],
      shares: { a2: 'a' },
      dies: 'a2',
      crashes: true,
      trimmedLogs: true,
      forgets: true,
      steps: 240,
      node: { tombstoneGraceMs: 500, antiEntropyMs: 1_000 },
    },
    share: 0.02,
  },
  'siblings-outcasts': {
    title: 'regions agree when members are forgotten and return, two of which use one store',
    troubles: {
      regions: ['a', 'a2', 'b', 'c'],
      shares: { a2: 'a' },
      crashes: true,
      outcasts: true,
      forgets: true,
      steps: 240,
      node: { tombstoneGraceMs: 500 },
    },
    share: 0.1,
  },
};

/** Seeds of a mode when `seeds` are asked for, at least one. */
export function seedsOf({ share = 1 }: Mode, seeds: number): number {
  return Math.ceil(seeds * share);
}

/** What to run to see a failed seed again. */
export function again(mode: string, seed: number): string {
  return `npm run simulate -- --mode ${mode} --seed ${seed}`;
}
