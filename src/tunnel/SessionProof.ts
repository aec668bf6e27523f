/**
 * The keys by which a peer proves that it belongs to a session. Both sides derive them in a handshake; a session has one
 * proof for each tunnel key that it was started or resumed with.
 */
import type * as Key from "../wire/Key.js"
import * as TunnelKey from "../wire/TunnelKey.js"

export interface SessionProof {
  /** The tunnel key that authenticated the handshake. */
  readonly key: TunnelKey.TunnelKey
  /** The salt of that handshake. */
  readonly salt: TunnelKey.Salt
  /** Agreed in that handshake. They authenticate pool connections and the next control connection. */
  readonly keys: Key.SessionKeys
}

/** Whether the second proof is by another tunnel key than the first. */
export const isRenewed = (before: SessionProof, after: SessionProof): boolean => !TunnelKey.same(before.key, after.key)
