/**
 * Compression of large batches of signals. The two sides agree in the handshake on whether to use it.
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"

export interface Codec {
  /** Raw DEFLATE (RFC 1951). */
  readonly deflate: (bytes: Uint8Array) => Uint8Array
  /** The inflated bytes, or `None` when the data is damaged or inflates to more than `limit` bytes. Holds no more in memory. */
  readonly inflate: (bytes: Uint8Array, limit: number) => Option.Option<Uint8Array>
}

/** The codec of this host, if it has one. */
export class Deflate extends Context.Tag("nodepass/Deflate")<Deflate, { readonly codec: Option.Option<Codec> }>() {}

/** Signals are sent and accepted uncompressed only. */
export const layerNone: Layer.Layer<Deflate> = Layer.succeed(Deflate, { codec: Option.none() })
