/** The front door, on a fake engine, beside a real valkey-server. */
import { FakeEngine } from './support/fake-engine.js';
import { respDifferential } from './support/resp-differential.js';

respDifferential('fake engine', async () => ({ engine: new FakeEngine(), stop: async () => {} }));
