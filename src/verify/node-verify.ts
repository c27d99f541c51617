/** Verification in a node: what it answers to others, and what it asks them. */
import { PeerError } from '../errors.js';
import type { Mesh, PeerId } from '../mesh/mesh.js';
import type { Logger } from '../options.js';
import type { KeyRules } from '../replica/key-rules.js';
import type { KeyWrite } from '../store/store.js';
import type { Member } from '../sync/members.js';
import { PROTOCOLS } from '../sync/messages.js';
import { fromPieces, toPieces } from '../sync/pieces.js';
import { CutMember, type CutMemberOptions } from './cut-member.js';
import { DeepMember } from './deep-member.js';
import { REPAIR_ANSWER_MS } from './limits.js';
import { type Ask, Participant } from './participants.js';
import type { VerifyOptions, VerifyReport } from './report.js';
import { Verifier } from './verify.js';
import { decode } from './wire.js';

export interface NodeVerifyOptions extends CutMemberOptions {
  readonly mesh: Mesh;
  readonly region: string;
  readonly replica: CutMemberOptions['replica'] & {
    readonly id: string;
    rewrite(writes: readonly KeyWrite[]): Promise<void>;
  };
  readonly members: () => readonly Member[];
  readonly random: () => number;
  readonly stopped: AbortSignal;
  readonly rules: KeyRules;
  readonly logger: Logger;
  readonly maxValueBytes: number;
  /** Pulls a member's state now, as when digests differ. Never rejects. */
  readonly pull: (peer: PeerId) => Promise<void>;
}

export class NodeVerify {
  readonly #cuts: CutMember;
  readonly #deep: DeepMember;
  readonly #verifier: Verifier;

  constructor(options: NodeVerifyOptions) {
    const { mesh, region, replica, stopped } = options;
    this.#cuts = new CutMember(options);
    stopped.addEventListener('abort', () => this.#cuts.stop());
    const ask: Ask = (peer, body, { signal, timeoutMs, maxBytes }) =>
      peer === mesh.self
        ? this.#messages(peer, body, signal)
        : fromPieces(mesh.request(peer, PROTOCOLS.verify, body, { signal, timeoutMs }), maxBytes);
    const others = () =>
      options
        .members()
        .filter(({ connected, heardAtMs, refused }) => connected && heardAtMs > 0 && refused === null);
    this.#deep = new DeepMember({
      ...options,
      ownReplica: () => replica.id,
      rewrite: (writes) => replica.rewrite(writes),
      pullAll: async () => {
        for (const { peerId } of others()) await options.pull(peerId);
      },
      askOthers: async (question, read) => {
        const answers = await Promise.all(
          others().map(async (member) => {
            const participant = new Participant(member, ask, options.timers, stopped);
            const answer = await participant.ask(
              question,
              (parts) => ({ value: read(parts) }),
              REPAIR_ANSWER_MS,
            );
            return answer && { replica: member.replica, answer: answer.value };
          }),
        );
        return answers.filter((answer) => answer !== null);
      },
    });
    this.#verifier = new Verifier({
      ...options,
      self: { peerId: mesh.self, region, replica: () => replica.id },
      ask,
    });
  }

  /** Answers a member's question, in pieces. */
  answer(from: PeerId, body: Uint8Array, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return toPieces(this.#messages(from, body, signal));
  }

  verify(options?: VerifyOptions): Promise<VerifyReport> {
    return this.#verifier.verify(options);
  }

  async *#messages(from: PeerId, body: Uint8Array, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const parts = decode(body);
    const answer = await this.#cuts.answer(from, parts, signal);
    const deep = answer === undefined ? this.#deep.answer(parts, signal) : undefined;
    if (deep !== undefined) return yield* deep;
    if (answer === undefined)
      throw new PeerError('this node does not know such a question: run the same release everywhere');
    yield answer;
  }
}
