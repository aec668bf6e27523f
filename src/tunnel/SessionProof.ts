/**
 * The keys by which a peer proves that it belongs to a session. Both sides derive them in a handshake; a session has one
 * proof for each tunnel key that it was started or resumed with.
 */
import type * as Handshake from "../wire/Handshake.js"
import * as Key from "../wire/Key.js"

export interface SessionProof {
  /** The tunnel key that authenticated the handshake. */
  readonly key: Key.Stretched
  /** Derived from the tunnel key and the nonces. They authenticate pool connections and the next control connection. */
  readonly keys: Key.SessionKeys
  readonly nonces: Handshake.Nonces
}

/** Whether the second proof is by another tunnel key than the first. */
export const isRenewed = (before: SessionProof, after: SessionProof): boolean => !Key.same(before.key, after.key)
