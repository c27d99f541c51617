/** Splits a line as typed into telnet: blanks separate, quotes group, `"\x41\n"` escapes (Valkey's sdssplitargs). */
import type { ByteString } from '../../crdts/bytes.js';

const BLANK = /[ \t\n\v\f\r]/;
const HEX = /^[0-9a-fA-F]{2}$/;
const ESCAPES: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t', b: '\b', a: '\x07' };

/** Gives the arguments of a line; null when its quotes don't match. */
export function splitInline(line: string): ByteString[] | null {
  const args: ByteString[] = [];
  let at = 0;
  for (;;) {
    while (at < line.length && BLANK.test(line[at] as string)) at += 1;
    if (at >= line.length) return args;
    let value = '';
    let quote = '';
    for (; at < line.length; at += 1) {
      const char = line[at] as string;
      if (quote === '') {
        if (BLANK.test(char)) break;
        if (char === '"' || char === "'") quote = char;
        else value += char;
      } else if (char === quote) {
        quote = '';
        // A closing quote ends the argument.
        at += 1;
        if (at < line.length && !BLANK.test(line[at] as string)) return null;
        break;
      } else if (
        char === '\\' &&
        quote === '"' &&
        line[at + 1] === 'x' &&
        HEX.test(line.slice(at + 2, at + 4))
      ) {
        value += String.fromCharCode(Number.parseInt(line.slice(at + 2, at + 4), 16));
        at += 3;
      } else if (char === '\\' && quote === '"' && at + 1 < line.length) {
        at += 1;
        value += ESCAPES[line[at] as string] ?? (line[at] as string);
      } else if (char === '\\' && quote === "'" && line[at + 1] === "'") {
        value += "'";
        at += 1;
      } else {
        value += char;
      }
    }
    if (quote !== '') return null;
    args.push(value as ByteString);
  }
}
