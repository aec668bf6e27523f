/**
 * TLS of a server's pool connections, or of a master's API: the parameters `tls`, `crt` and `key` as one value.
 */
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { TlsMode } from "../core/TlsMode.js"
import { refuse, type UrlError } from "./UrlError.js"

export const ServerTls = Schema.Union(
  Schema.Struct({ mode: Schema.Literal("plain") }),
  Schema.Struct({ mode: Schema.Literal("self-signed") }),
  /** `crt` and `key` are the paths of PEM files. */
  Schema.Struct({ mode: Schema.Literal("verified"), crt: Schema.String, key: Schema.String })
)
export type ServerTls = typeof ServerTls.Type

/** The values of the three parameters. */
export interface Parameters {
  readonly tls: TlsMode
  readonly crt: Option.Option<string>
  readonly crtKey: Option.Option<string>
}

/** Fails when a file is missing with `tls=2`, or set without it. */
export const fromParameters = ({ crt, crtKey, tls: mode }: Parameters): Either.Either<ServerTls, UrlError> => {
  if (mode === "verified") {
    if (Option.isNone(crt)) return refuse("crt", "", "a certificate file, because tls=2")
    if (Option.isNone(crtKey)) return refuse("key", "", "the private key file of crt, because tls=2")
    return Either.right({ mode, crt: crt.value, key: crtKey.value })
  }
  if (Option.isSome(crt)) return refuse("crt", crt.value, "no certificate file unless tls=2")
  if (Option.isSome(crtKey)) return refuse("key", crtKey.value, "no private key file unless tls=2")
  return Either.right({ mode })
}

export const toParameters = (tls: ServerTls): Parameters => ({
  tls: tls.mode,
  crt: tls.mode === "verified" ? Option.some(tls.crt) : Option.none(),
  crtKey: tls.mode === "verified" ? Option.some(tls.key) : Option.none()
})
