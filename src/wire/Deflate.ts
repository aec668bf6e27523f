/**
 * Compression of large batches of signals: none, unless the host provides it. The two sides agree on it.
 */
import * as Context from "effect/Context"
import * as Option from "effect/Option"

export interface Codec {
  /** Raw DEFLATE (RFC 1951). */
  readonly deflate: (bytes: Uint8Array) => Uint8Array
  /** What was deflated, or `None` when it is damaged or longer than `limit` bytes; never holds more than that. */
  readonly inflate: (bytes: Uint8Array, limit: number) => Option.Option<Uint8Array>
}

/** How this host compresses, if it can. */
export class Deflate extends Context.Reference<Deflate>()("nodepass/Deflate", {
  defaultValue: (): { readonly codec: Option.Option<Codec> } => ({ codec: Option.none() })
}) {}
