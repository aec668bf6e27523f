/**
 * The authorities that the system trusts: where OpenSSL and curl look for them, and what the environment adds. They are
 * read once, by the first connection that needs them.
 */
import * as Effect from "effect/Effect"
import process from "node:process"
import * as RegularFile from "../../core/RegularFile.js"
import type * as Tls from "../../transport/Tls.js"
import * as NodeRegularFile from "../file/NodeRegularFile.js"

/**
 * Reads them, unless that was done before, if this side needs them to judge its peer.
 *
 * A file that cannot be read is logged, and the handshake goes on without it. Only the default one may be missing.
 */
export const load = (as: Tls.Side): Effect.Effect<void> =>
  Effect.suspend(() =>
    as.side === "server" || as.trust._tag === "Pinned" || loaded !== undefined ? Effect.void : once.withPermits(1)(read)
  )

/** PEM texts; none before they are loaded. */
export const texts = (): ReadonlyArray<string> => loaded ?? []

// internal

/** Some organizations have bundles of several megabytes. */
const limit = 16 * 1024 * 1024

let loaded: ReadonlyArray<string> | undefined
const once = Effect.unsafeMakeSemaphore(1)

const read = Effect.suspend(() => {
  if (loaded !== undefined) return Effect.void
  const { NODE_EXTRA_CA_CERTS: added, SSL_CERT_FILE: named } = process.env
  const files = [
    named === undefined ? textOf("/etc/ssl/certs/ca-certificates.crt") : textOf(named, "SSL_CERT_FILE"),
    ...(added === undefined ? [] : [textOf(added, "NODE_EXTRA_CA_CERTS")])
  ]
  return Effect.map(Effect.all(files), (texts) => {
    loaded = texts.filter((text) => text !== "")
  })
})

const textOf = (file: string, variable?: string): Effect.Effect<string> =>
  Effect.matchEffect(NodeRegularFile.read(file, { limit }), {
    onSuccess: (content) => Effect.succeed(RegularFile.text(content)),
    onFailure: ({ message, reason }) =>
      Effect.as(
        reason === "NotFound" && variable === undefined
          ? Effect.void
          : Effect.logWarning(
              `${variable === undefined ? "" : `${variable}: `}${message}; its authorities are not trusted until the next start`
            ),
        ""
      )
  })
