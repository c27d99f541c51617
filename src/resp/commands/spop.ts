/**
 * SPOP: members are chosen by asking the store, which costs the same for a set of any size; an operation then removes
 * those that are still there. What it didn't remove is never given to the client, and is made up for by another round.
 */
import type { ByteString } from '../../../crdts/bytes.js';
import type { Operation, Transaction } from '../../replica/operation.js';
import { typed } from '../command.js';
import type { Session } from '../session.js';

/** Rounds without any progress after which the whole set is loaded: then the choice and the removal are one. */
const MAX_VAIN_ROUNDS = 3;
/** Members of one operation. */
const MAX_ROUND = 10_000;

type Choose = (members: readonly ByteString[], count: number) => ByteString[];

/** Removes up to `count` random members and gives those that it removed. Throws WrongTypeError. */
export async function pop(session: Session, key: ByteString, count: number): Promise<ByteString[]> {
  const popped: ByteString[] = [];
  let vainRounds = 0;
  // Zero asks too: the key's type is looked at.
  do {
    const wanted = Math.min(count - popped.length, MAX_ROUND);
    const chosen = typed(await session.engine.reads.randomMembers(key, wanted));
    if (chosen.length === 0) break;
    const removed = await submit(
      session,
      vainRounds < MAX_VAIN_ROUNDS ? removePresent(key, chosen) : popWithin(key, wanted, takeFirst),
    );
    popped.push(...removed);
    if (removed.length > 0) vainRounds = 0;
    else if (vainRounds === MAX_VAIN_ROUNDS) break;
    else vainRounds += 1;
  } while (popped.length < count);
  return popped;
}

/** SPOP as one operation on the whole set. */
export function popWithin(key: ByteString, count: number, choose: Choose): Operation<ByteString[]> {
  return {
    needs: [{ key, members: 'all' }],
    run: (tx) => {
      const chosen = choose(tx.members(key), count);
      if (chosen.length > 0) tx.remove(key, chosen);
      return chosen;
    },
  };
}

const takeFirst: Choose = (members, count) => members.slice(0, count);

function removePresent(key: ByteString, members: readonly ByteString[]): Operation<ByteString[]> {
  return {
    needs: [{ key, members }],
    run: (tx: Transaction) => {
      const present = members.filter((member) => tx.has(key, member));
      if (present.length > 0) tx.remove(key, present);
      return present;
    },
  };
}

function submit<T>(session: Session, operation: Operation<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    session.engine.submit(operation, {
      settled(error, value, frameNumber) {
        if (error !== null) return reject(error);
        session.wrote(frameNumber);
        resolve(value as T);
      },
    });
  });
}
