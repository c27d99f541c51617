/** The error of a start that failed. */
import { MeshError } from '../errors.js';

/** Thrown when the settings are fine and a peer can't be started all the same: a port in use, a store that doesn't answer … */
export class StartError extends MeshError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('START', message, options);
  }
}
