/** How the demo writes: coloured on a terminal, plain anywhere else. */

/** Writes the lines of the story. */
export interface Terminal {
  line(text?: string): void;
  heading(text: string): void;
  bold(text: string): string;
  dim(text: string): string;
  good(text: string): string;
  bad(text: string): string;
  /** Rows as aligned columns, indented; the first row is the heading. */
  table(rows: readonly (readonly string[])[]): void;
}

/** Makes the terminal of a stream. `NO_COLOR` in the environment turns colours off. */
export function createTerminal(out: NodeJS.WriteStream): Terminal {
  const coloured = out.isTTY && !process.env.NO_COLOR;
  const paint = (code: number) => (text: string) => (coloured ? `\u001b[${code}m${text}\u001b[0m` : text);
  const [bold, dim, good, bad] = [paint(1), paint(2), paint(32), paint(31)] as const;
  const line = (text = '') => void out.write(`${text}\n`);
  return {
    line,
    heading: (text) => line(`\n${bold(text)}`),
    bold,
    dim,
    good,
    bad,
    table(rows) {
      const widths: number[] = [];
      for (const row of rows)
        row.forEach((cell, at) => {
          widths[at] = Math.max(widths[at] ?? 0, cell.length);
        });
      rows.forEach((row, index) => {
        const text = row
          .map((cell, at) => cell.padEnd(widths[at]!))
          .join('  ')
          .trimEnd();
        line(`   ${index === 0 ? dim(text) : text}`);
      });
    },
  };
}
