/**
 * Opens authenticated control connections to a server.
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Address } from "../core/Address.js"
import type { Deadlines } from "../core/Deadlines.js"
import { rootSpan } from "../core/RootSpan.js"
import type { TlsMode } from "../core/TlsMode.js"
import type { Crypto } from "../transport/Crypto.js"
import { Settings } from "../transport/Settings.js"
import { type Connection, Transport, TransportError } from "../transport/Transport.js"
import type { Deflate } from "../wire/Deflate.js"
import * as Handshake from "../wire/Handshake.js"
import type { HandshakeError } from "../wire/HandshakeError.js"
import * as TunnelKey from "../wire/TunnelKey.js"
import type { InForce } from "./Keyring.js"

export interface Options extends Handshake.Offer {
  /** The server's tunnel address. */
  readonly address: Address
  /** See `TunnelKey.saltOf`. */
  readonly salt: TunnelKey.Salt
  /** The id of this client. */
  readonly client: string
  /** The weakest mode that the server may secure pool connections with. */
  readonly tls: TlsMode
  /** The session to resume. */
  readonly resume: Handshake.Resumable | undefined
}

export interface Opened {
  readonly connection: Connection
  readonly agreement: Handshake.Agreement
  /** The tunnel key that authenticated it. */
  readonly key: TunnelKey.TunnelKey
}

type Environment = Crypto | Deadlines | Deflate | Scope.Scope | Settings | Transport

/** Tries the tunnel keys in force, the newest first, until the server knows one. The caller's scope owns the connection. */
export const open = (
  keys: InForce,
  options: Options
): Effect.Effect<Opened, HandshakeError | TransportError, Environment> =>
  rootSpan("ClientHandshake.open", () => ({ server: String(options.address) }))(attempt(keys, options))

// internal

const attempt = (
  [key, ...olderKeys]: InForce,
  options: Options
): Effect.Effect<Opened, HandshakeError | TransportError, Environment> =>
  Effect.gen(function* () {
    const { address, client, resume, run, salt, streams, tls } = options
    const psk = yield* TunnelKey.derive(key, salt)
    const connection = yield* connect(address)
    const agreement = yield* Handshake.accept(connection, { psk, salt, client, tls, resume, streams, run }).pipe(
      Effect.tapError(() => connection.reset)
    )
    return { connection, agreement, key }
  }).pipe(
    Effect.catchIf(
      // A server gives no answer to a key that it does not know.
      (error) => error._tag === "HandshakeError" && error.reason === "NoAnswer",
      (error) => (Arr.isNonEmptyReadonlyArray(olderKeys) ? attempt(olderKeys, options) : error)
    )
  )

const connect = (address: Address) =>
  Effect.flatMap(Effect.all([Settings, Transport]), ([{ handshakeTimeout }, transport]) =>
    Effect.timeoutFail(transport.connect(address), {
      duration: handshakeTimeout,
      onTimeout: () => new TransportError({ operation: "connect", reason: "TimedOut", address })
    })
  )
