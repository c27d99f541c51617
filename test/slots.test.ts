import assert from 'node:assert/strict';
import { it } from 'node:test';
import { Redis } from 'ioredis';
import type { ByteString } from '../crdts/bytes.js';
import { entriesKey, isReservedKey, logKey, META_KEY, slotHashKey } from '../src/store/layout.js';
import { crc16, keySlot, SLOTS, slotTags, TAG_LENGTH } from '../src/store/slots.js';
import { launchValkey } from '../src/valkey-server/launch.js';

const b = (bytes: string) => bytes as ByteString;
const ODD_KEYS = [
  '',
  'foo',
  '{foo}x',
  'x{foo}',
  '{}x',
  '{',
  'a{b',
  'a}b{c}',
  'x{a}{b}',
  '{{a}}',
  '\0',
  '\xff\xfe',
  'é',
  '{\xff}1',
];

it('CRC16 gives the check value of XMODEM', () => {
  assert.equal(crc16(b('123456789')), 0x31c3);
  assert.equal(crc16(b('')), 0);
});

it('keys are in the slots that Valkey puts them in', async () => {
  const server = await launchValkey({ args: ['--cluster-enabled', 'yes'] });
  const redis = new Redis(server.url);
  try {
    for (const key of ODD_KEYS) {
      assert.equal(
        keySlot(b(key)),
        await redis.cluster('KEYSLOT', Buffer.from(key, 'latin1')),
        JSON.stringify(key),
      );
    }
  } finally {
    redis.disconnect();
    await server.stop();
  }
});

it('every slot has a tag of its own, and it is the same for ever', () => {
  const tags = slotTags();
  assert.equal(tags.length, SLOTS);
  for (const [slot, tag] of tags.entries()) {
    assert.equal(tag.length, TAG_LENGTH);
    assert.equal(keySlot(b(`{${tag}}anything{x}`)), slot);
  }
  // Stored data is named by them: other tags would lose it.
  assert.deepEqual([tags[0], tags[1], tags[8191], tags[16_383]], ['06S', '2Gx', '6xN', '6ZJ']);
});

it('what belongs to a key is in the slot of the key, under the reserved prefix', () => {
  for (const key of ODD_KEYS.map(b)) {
    const slot = keySlot(key);
    for (const name of [entriesKey(key), slotHashKey(slot)]) {
      assert.equal(keySlot(name), slot, JSON.stringify(key));
      assert.ok(isReservedKey(name));
    }
    assert.equal(isReservedKey(key), false);
  }
  assert.ok(isReservedKey(META_KEY) && isReservedKey(logKey('a.1')));
  assert.throws(() => slotHashKey(SLOTS), RangeError);
});

it('names of entries differ where keys do', () => {
  assert.equal(new Set(ODD_KEYS.map((key) => entriesKey(b(key)))).size, ODD_KEYS.length);
});
