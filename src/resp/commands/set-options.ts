/** The options of SET and GETEX, which exclude each other as in Valkey (parseExtendedStringArgumentsOrReply). */
import type { ByteString } from '../../../crdts/bytes.js';
import type { Args } from '../command.js';
import { syntaxError } from '../errors.js';
import { TIME_UNITS, type TimeUnit } from '../expiry-options.js';

export interface SetOptions {
  readonly only: 'NX' | 'XX' | null;
  readonly get: boolean;
  readonly keepTtl: boolean;
  readonly persist: boolean;
  readonly time: { readonly unit: TimeUnit; readonly amount: ByteString } | null;
}

/** Reads options from the `from`-th argument on. Throws CommandError `syntax error`. */
export function parseSetOptions(args: Args, from: number, command: 'set' | 'getex'): SetOptions {
  const isSet = command === 'set';
  let only: 'NX' | 'XX' | null = null;
  let get = false;
  let keepTtl = false;
  let persist = false;
  let timeName = '';
  let amount: ByteString | null = null;
  for (let i = from; i < args.length; i += 1) {
    const option = (args[i] as string).toUpperCase();
    const unit = TIME_UNITS.get(option);
    if ((option === 'NX' || option === 'XX') && isSet && (only === null || only === option)) {
      only = option;
    } else if (option === 'GET' && isSet) {
      get = true;
    } else if (option === 'KEEPTTL' && isSet && timeName === '') {
      keepTtl = true;
    } else if (option === 'PERSIST' && !isSet && timeName === '') {
      persist = true;
    } else if (
      unit !== undefined &&
      !keepTtl &&
      !persist &&
      (timeName === '' || timeName === option) &&
      i + 1 < args.length
    ) {
      timeName = option;
      i += 1;
      amount = args[i] as ByteString;
    } else {
      throw syntaxError();
    }
  }
  const unit = TIME_UNITS.get(timeName);
  const time = unit === undefined || amount === null ? null : { unit, amount };
  return { only, get, keepTtl, persist, time };
}
