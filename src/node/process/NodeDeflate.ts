/**
 * `Deflate` with Node's zlib.
 */
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Zlib from "node:zlib"
import { type Codec, Deflate } from "../../wire/Deflate.js"

/** Level 1, the fastest: higher levels make signals hardly smaller and take twice the time. */
const codec: Codec = {
  deflate: (bytes) => Zlib.deflateRawSync(bytes, { level: 1 }),
  inflate: (bytes, limit) => {
    try {
      return Option.some(Zlib.inflateRawSync(bytes, { maxOutputLength: limit }))
    } catch {
      return Option.none()
    }
  }
}

export const layer: Layer.Layer<Deflate> = Layer.succeed(Deflate, { codec: Option.some(codec) })
