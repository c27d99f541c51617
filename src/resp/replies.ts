/** Ways to tell a result that many commands share. */
import type { ByteString } from '../../crdts/bytes.js';
import type { Reply } from './command.js';
import type { ReplyWriter } from './encoder.js';

export const writeOk = (out: ReplyWriter): void => out.ok();
export const writeInteger = (out: ReplyWriter, value: number | bigint): void => out.integer(value);
export const writeBoolean = (out: ReplyWriter, value: boolean): void => out.integer(value ? 1 : 0);
export const writeBulkOrNil = (out: ReplyWriter, value: ByteString | null): void => out.bulkOrNil(value);
export function writeBulks(out: ReplyWriter, values: readonly ByteString[]): void {
  out.array(values.length);
  out.bulks(values);
}
export function writeSet(out: ReplyWriter, values: readonly ByteString[]): void {
  out.set(values.length);
  out.bulks(values);
}

export const okReply: Reply = writeOk;
export const integerReply =
  (value: number | bigint): Reply =>
  (out) =>
    out.integer(value);
export const bulksReply =
  (values: readonly ByteString[]): Reply =>
  (out) =>
    writeBulks(out, values);

/** Lines of a HELP subcommand, in Valkey's form. */
export function helpReply(command: string, lines: readonly string[]): Reply {
  const all = [
    `${command} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:`,
    ...lines,
    'HELP',
    '    Print this help.',
  ];
  return (out) => {
    out.array(all.length);
    for (const line of all) out.simple(line);
  };
}
