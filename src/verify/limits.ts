/** Bounds of a verification. Whoever answers keeps to them whatever it is asked, whoever asks whatever it is told. */

/** Operations are held for this long at most, by the member's own timer. */
export const MAX_HOLD_MS = 2_000;
/** After a hold, none is granted for this many times as long: so at most a fifth of a member's time is held. */
export const COOL_DOWN_FACTOR = 4;
/** Nor for this long. */
export const MIN_COOL_DOWN_MS = 100;
/** A member has so long to answer one question, but for those that read much. */
export const ANSWER_MS = 3_000;
/** A member that checks its store says at least this often that it is still there. */
export const DEEP_SILENCE_MS = 30_000;
/** Verifications whose digests a member keeps, and for how long. */
export const MAX_SESSIONS = 8;
export const SESSION_MS = 60_000;
/** Differing slots that are looked into. */
export const MAX_SLOTS = 64;
/** Keys of those slots that are compared one by one. */
export const MAX_KEYS = 10_000;
/** Bytes of key names in one answer, about. */
export const MAX_KEY_BYTES = 4 * 1024 * 1024;
/** Differing keys that are reported with their states. */
export const MAX_STATES = 100;
/** Members of a set that a reported state lists; of larger sets than the second, none. */
export const MAX_LISTED_MEMBERS = 20;
export const MAX_EXPLAINED_MEMBERS = 10_000;
/** Bytes of one answer. */
export const MAX_ANSWER_BYTES = 32 * 1024 * 1024;
/** Findings that one region reports. */
export const MAX_FINDINGS = 1_000;
/** Sets up to this size are read at once, larger ones in pages of this size. */
export const SET_PAGE = 1_000;
/** How often a key that changes meanwhile is looked at again. */
export const FLUX_TRIES = 20;
/** Keys that are read together. */
export const KEY_PAGE = 32;
/** Repairs that one question asks for. */
export const MAX_REPAIRS = 100;
/** Entries of a set that another member is asked for, at most. */
export const MAX_ENTRIES = 100_000;
/** A member has so long to send what a repair needs of it. */
export const REPAIR_ANSWER_MS = 10_000;
