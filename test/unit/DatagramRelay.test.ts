import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import type * as Option from "effect/Option"
import type { DatagramChannel } from "../../src/relay/DatagramChannel.js"
import * as DatagramRelay from "../../src/relay/DatagramRelay.js"
import * as Meter from "../../src/relay/Meter.js"
import * as Throttle from "../../src/relay/Throttle.js"
import * as Simulated from "../Simulated.js"

/** Receives one datagram and then nothing, or the end. */
const channel = (next: Effect.Effect<Option.Option<ReadonlyArray<Uint8Array>>>): DatagramChannel => {
  let isFirst = true
  return {
    receive: Effect.suspend(() => {
      if (!isFirst) return next
      isFirst = false
      return Effect.succeedSome([new Uint8Array(1)])
    }),
    send: () => Effect.void,
    unsent: () => 0
  }
}

/** What one exchange logs, with the level. */
const logOf = (far: DatagramChannel): ReadonlyArray<string> => {
  const log: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => void log.push(`${logLevel.label} ${String(message)}`))
  const slot = { touch: () => {}, confirm: () => {} }
  Simulated.run({ seed: 1 }, () =>
    Effect.flatMap(DatagramRelay.DatagramRelay, ({ exchange }) =>
      exchange(channel(Effect.never), far, { visitor: "near", slot })
    ).pipe(
      Effect.provide(
        DatagramRelay.layer({ idle: Duration.seconds(30) }).pipe(
          Layer.provide(Layer.merge(Meter.layer, Throttle.layer()))
        )
      ),
      Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
      Logger.withMinimumLogLevel(LogLevel.Debug)
    )
  )
  return log
}

describe("DatagramRelay", () => {
  it("says at debug that a session was silent, for how long and when it began", () => {
    assert.deepStrictEqual(logOf(channel(Effect.never)), [
      "DEBUG UDP session ended: silent in both directions for 30s, 31s after it began"
    ])
  })

  it("gives no reason when the other side has ended the session", () => {
    assert.deepStrictEqual(logOf(channel(Effect.succeedNone)), ["DEBUG UDP session ended, 0 after it began"])
  })
})
