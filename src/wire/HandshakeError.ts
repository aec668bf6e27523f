/**
 * Why a handshake failed.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Address } from "../core/Address.js"
import { withoutStack } from "../core/WithoutStack.js"
import type { Connection } from "../transport/Transport.js"

/** How far the time of a client's first message may be from the server's clock, in milliseconds. */
export const clockTolerance = 300_000

const limit = Duration.format(Duration.millis(clockTolerance))

const sentences = {
  NoAnswer: `closed the connection without an answer: the keys differ, or the clocks differ by more than ${limit}, or it is not a nodepass-effect server`,
  WrongKey: "does not know the key",
  Malformed: "sent data that is not a handshake",
  Version: "uses a version of the protocol that is not supported here",
  Clock: `knows the key, and its clock differs by more than ${limit}: set the time on both machines`,
  Replayed: "sent the first message of another connection again",
  Unstretched: "connects to an address for which the key is not stretched yet, and too many do; it may try again",
  TimedOut: "did not complete the handshake in time",
  Busy: "serves another client; trying again until that client disconnects",
  Ended: "closed the connection during the handshake",
  UnknownSession: "offered a pool connection for a session that is over",
  Downgrade: "offers weaker TLS for pool connections than tls= requires here"
} as const

const Reason = Schema.Literal(
  "NoAnswer",
  "WrongKey",
  "Malformed",
  "Version",
  "Clock",
  "Replayed",
  "Unstretched",
  "TimedOut",
  "Busy",
  "Ended",
  "UnknownSession",
  "Downgrade"
)

/** The handshake with this peer failed. */
export class HandshakeError extends withoutStack(
  Schema.TaggedError<HandshakeError>()("HandshakeError", {
    reason: Reason,
    peer: Address,
    /** Of `Clock`: by how much the peer's clock is ahead of this one, or behind it. */
    difference: Schema.optional(Schema.String)
  })
) {
  override get message(): string {
    const measured = this.difference === undefined ? "" : `; it is ${this.difference}, unless the message is a replay`
    return `${String(this.peer)} ${sentences[this.reason]}${measured}`
  }
}

export const make = (reason: HandshakeError["reason"], { remote }: Connection): HandshakeError =>
  new HandshakeError({ reason, peer: remote })

/** Fails with `HandshakeError`. */
export const refuse = (
  reason: HandshakeError["reason"],
  connection: Connection
): Effect.Effect<never, HandshakeError> => Effect.suspend(() => Effect.fail(make(reason, connection)))
