/** A verification's report as lines of text. */
import type { Readable } from '../../crdts/explanation.js';
import type { DifferingKey, VerifyReport } from './report.js';

/** States longer than this many characters are cut. */
const STATE_LENGTH = 600;

/** What it came to in a line, then each region, then what differs. */
export function describeVerify(report: VerifyReport): string {
  const { outcome, regions, reasons, cut, heldMs, deep } = report;
  const compared = regions.filter(({ state }) => state === 'compared').map(({ region }) => region);
  const lines = [
    {
      identical: `identical: ${compared.join(', ')}`,
      different: `different: ${compared.join(', ')}`,
      unverified:
        cut === null
          ? 'not verified'
          : `not verified: only ${compared.join(', ')} were compared, and are identical`,
    }[outcome],
  ];
  for (const { region, peerId, state, reason, digest, keys } of regions)
    lines.push(
      state === 'compared' && digest !== null
        ? `  ${region || peerId}: digest ${digest}, ${keys} keys`
        : `  ${region || peerId}: ${state === 'compared' ? 'no digest at a common cut' : `${state}: ${reason}`}`,
    );
  for (const reason of reasons) lines.push(`  ${reason}`);
  if (cut !== null) {
    const frames = Object.entries(cut).map(([replica, number]) => `${replica} ${number}`);
    lines.push(`  at the cut ${frames.join(', ') || 'before the first write'}`);
  }
  lines.push(heldMs > 0 ? `  operations were held for ${heldMs} ms` : '  no operation was held');
  if (report.differingSlots > 0) lines.push(`  ${report.differingSlots} slots differ`);
  for (const key of report.differingKeys) lines.push(...describeKey(key));
  if (report.moreKeys) lines.push('  there are more keys that differ');
  if (deep !== null) {
    lines.push(
      `  ${deep.checked} keys were compared with their native values, ${deep.inFlux} changed too often for it`,
    );
    for (const { region, kind, key, slot, detail, repair, why } of deep.findings) {
      const what = key === null ? `slot ${slot}` : show(key);
      const done = repair === null ? '' : repair === 'repaired' ? '; repaired' : `; left: ${why}`;
      lines.push(`  ${region}: ${kind}: ${what}: ${detail}${done}`);
    }
    if (deep.more > 0) lines.push(`  and ${deep.more} more findings`);
  }
  return lines.map(safe).join('\n');
}

function describeKey({ key, slot, regions }: DifferingKey): string[] {
  const lines = [`  ${show(key)} (slot ${slot}) differs:`];
  for (const { region, digest, state } of regions) {
    const json = state === null ? null : JSON.stringify(state);
    const shown =
      json === null ? '' : ` ${json.length > STATE_LENGTH ? `${json.slice(0, STATE_LENGTH)} …` : json}`;
    lines.push(`    ${region}: ${digest === null ? 'nothing lives' : `digest ${digest}`}${shown}`);
  }
  return lines;
}

function show(value: Readable): string {
  if ('unloaded' in value) return '(not loaded)';
  return 'text' in value ? JSON.stringify(value.text) : `"${value.escaped}"`;
}

/** What members say must not move a terminal's cursor. */
function safe(line: string): string {
  return line.replace(/\p{Cc}/gu, (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
