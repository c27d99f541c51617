/** The Valkey whose behaviour the front door has; clients look at it to know what they may use. */
export const COMPATIBLE_VERSION = '8.0.1';
/** What Valkey itself tells clients that look for a Redis version. */
export const COMPATIBLE_REDIS_VERSION = '7.2.4';
