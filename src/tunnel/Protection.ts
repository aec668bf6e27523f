/**
 * How the bytes of visitors are protected between the two sides, in one line of the log.
 */
import * as Option from "effect/Option"
import type { Terms } from "../wire/Signal.js"

export const sentenceOf = ({ fingerprint, tls }: Terms): string => {
  switch (tls) {
    case "plain":
      return "visitors' data is not encrypted (tls=0); signals are"
    case "self-signed":
      return `visitors' data is encrypted by TLS 1.3 (tls=1), certificate sha256 ${Option.getOrElse(fingerprint, () => "unknown")}`
    case "verified":
      return "visitors' data is encrypted by TLS 1.3 (tls=2), with a certificate that the client verifies"
  }
}
