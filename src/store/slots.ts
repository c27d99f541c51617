/**
 * Hash slots, as Valkey Cluster computes them: CRC16 (XMODEM) of the key, or of its hash tag, modulo 16384; and one
 * short fixed tag for each slot, so that a key of ours can stand in any slot we choose.
 */
import type { ByteString } from '../../crdts/bytes.js';

/** Number of hash slots. */
export const SLOTS = 16384;

/** Length of every slot's tag in bytes. */
export const TAG_LENGTH = 3;

const CRC_TABLE = new Uint16Array(256);
for (let byte = 0; byte < 256; byte += 1) {
  let crc = byte << 8;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
  CRC_TABLE[byte] = crc & 0xffff;
}

function addByte(crc: number, byte: number): number {
  return ((crc << 8) ^ (CRC_TABLE[(crc >>> 8) ^ byte] as number)) & 0xffff;
}

/** CRC16 of the bytes from `start` to `end`. */
export function crc16(bytes: ByteString, start = 0, end: number = bytes.length): number {
  let crc = 0;
  for (let i = start; i < end; i += 1) crc = addByte(crc, bytes.charCodeAt(i));
  return crc;
}

/** The slot of a key: by what is between its first `{` and the next `}`, if that isn't empty, else by all of it. */
export function keySlot(key: ByteString): number {
  const open = key.indexOf('{');
  if (open >= 0) {
    const close = key.indexOf('}', open + 1);
    if (close > open + 1) return crc16(key, open + 1, close) & (SLOTS - 1);
  }
  return crc16(key) & (SLOTS - 1);
}

const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

let tags: ByteString[] | null = null;

/**
 * The tag of each slot: three letters or digits whose own slot it is, the first such in ASCII order. Stored data is
 * named by them, so they must never change.
 */
export function slotTags(): readonly ByteString[] {
  if (tags !== null) return tags;
  const found: ByteString[] = new Array(SLOTS);
  let missing = SLOTS;
  for (const a of ALPHABET) {
    const crcA = addByte(0, a.charCodeAt(0));
    for (const b of ALPHABET) {
      const crcB = addByte(crcA, b.charCodeAt(0));
      for (const c of ALPHABET) {
        const slot = addByte(crcB, c.charCodeAt(0)) & (SLOTS - 1);
        if (found[slot] !== undefined) continue;
        found[slot] = (a + b + c) as ByteString;
        missing -= 1;
        if (missing === 0) {
          tags = found;
          return found;
        }
      }
    }
  }
  throw new Error(`${missing} slots have no tag`);
}
