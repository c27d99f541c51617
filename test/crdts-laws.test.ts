/** The laws, for every type. */
import { keySubject } from './support/crdt-keys.js';
import { testLaws } from './support/crdt-laws.js';
import {
  counterSubject,
  expirySubject,
  multiValueSubject,
  registerSubject,
  setSubject,
  stringSubject,
  valuesSubject,
} from './support/crdt-subjects.js';

testLaws(registerSubject);
testLaws(counterSubject);
testLaws(stringSubject);
testLaws(setSubject);
testLaws(multiValueSubject);
testLaws(expirySubject);
testLaws(valuesSubject);
testLaws(keySubject);
