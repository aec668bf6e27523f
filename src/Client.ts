/**
 * The client's side of a tunnel: it connects, keeps the pool filled, and connects again for ever.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type { Address } from "./Address.js"
import * as Backoff from "./Backoff.js"
import { Crypto } from "./Crypto.js"
import * as DialingPool from "./DialingPool.js"
import type { Egress } from "./Egress.js"
import * as Handshake from "./Handshake.js"
import type * as Key from "./Key.js"
import { Link } from "./Link.js"
import type { Refusals } from "./Refusals.js"
import * as Session from "./Session.js"
import { Settings } from "./Settings.js"
import * as SignalBus from "./SignalBus.js"
import { Transport, TransportError } from "./Transport.js"

export interface Options {
  /** The server's tunnel address. */
  readonly address: Address
  readonly key: Key.Stretched
  /** Idle pool connections at least. */
  readonly min: number
  /** Opens or closes the port for visitors, as the server's terms have it. Asked in each session. */
  readonly openPort: (visitors: "here" | "there") => Effect.Effect<void, TransportError>
}

/** Why a session did not come about, or ended, and how long it had stood. */
interface Ended {
  readonly error: Handshake.HandshakeError | SignalBus.SignalBusClosed | TransportError
  readonly stood: Duration.Duration
}

/** A session that stood this long starts the waits between attempts anew. */
const healthy = Duration.seconds(5)

/** Connects for ever, waiting between attempts as `Backoff` has it, up to the service cooldown. */
export const run = (
  options: Options
): Effect.Effect<never, never, Crypto | Egress | Link | Refusals | Settings | Transport> =>
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const { handshakeTimeout, serviceCooldown } = yield* Settings
    const link = yield* Link
    const transport = yield* Transport
    const client = Encoding.encodeHex(yield* crypto.randomBytes(8))
    const { address, key } = options
    const server = String(address)

    const connect = Effect.timeoutFail(transport.connect(address), {
      duration: handshakeTimeout,
      onTimeout: () => new TransportError({ operation: "connect", reason: "TimedOut", address })
    })

    /** One session from its first byte to its end. `stands` is run once it serves. */
    const session = (stands: Effect.Effect<void>) =>
      Effect.gen(function* () {
        const connection = yield* connect
        const { dialect, keys, terms } = yield* Handshake.accept(connection, { key, client })
        const visitors = terms.receiver === "client" ? "here" : "there"
        yield* options.openPort(visitors)
        const services = yield* Layer.build(
          Session.layer({ visitors }).pipe(
            Layer.provideMerge(DialingPool.layer({ address, keys, min: options.min, max: terms.max, visitors })),
            Layer.provide(SignalBus.layer({ connection, dialect }))
          )
        )
        const session = Context.get(services, Session.Session)
        yield* link.use(session)
        yield* stands
        return yield* session.run
      }).pipe(Effect.scoped)

    let said = ""
    const attempt = Effect.gen(function* () {
      let since: number | undefined
      const stands = Effect.flatMap(Clock.currentTimeMillis, (now) => {
        since = now
        said = ""
        return Effect.logInfo("connected").pipe(Effect.annotateLogs({ server }))
      })
      const error = yield* Effect.flip(session(stands))
      const now = yield* Clock.currentTimeMillis
      return yield* Effect.fail<Ended>({ error, stood: Duration.millis(since === undefined ? 0 : now - since) })
    })

    /** The first of a row of like failures is said, the others whispered. */
    const say = ({ error, stood }: Ended) =>
      Effect.suspend(() => {
        const again = said === error.message
        said = error.message
        const line = `${Duration.isZero(stood) ? "no session" : "session over"}: ${error.message}`
        return (again ? Effect.logDebug(line) : Effect.logWarning(line)).pipe(Effect.annotateLogs({ server }))
      })

    const policy = Backoff.schedule(serviceCooldown).pipe(
      Schedule.mapInput(({ error, stood }: Ended) => ({
        healthy: Duration.greaterThanOrEqualTo(stood, healthy),
        refused: error._tag === "TransportError" && error.reason === "Refused"
      })),
      Schedule.tapInput(say)
    )
    return yield* Effect.orDieWith(Effect.retry(attempt, policy), () => new Error("the schedule never ends"))
  })
