import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Address from "../../src/core/Address.js"
import * as VisitorStream from "../../src/stream/VisitorStream.js"
import { type Connection, serve, Transport, type TransportError } from "../../src/transport/Transport.js"
import { readAll, textOf, utf8 } from "../Bytes.js"
import { runs } from "../Runs.js"
import * as SmallWorld from "./worlds/SmallWorld.js"
import { clientConfig, serverConfig } from "./worlds/SmallWorld.js"

const target = Address.make("target", 81)
const latency = 10
const chunk = new Uint8Array(4000).fill(120)

interface Crowd {
  readonly receiver: "server" | "client"
  /** What does not read: the visitors what their targets send, or the targets what the visitors send. */
  readonly slow: "visitor" | "target"
  /** How long a slow one waits before it reads a chunk. */
  readonly readsEvery: "never" | "10 seconds"
  readonly count: number
  readonly window: number
  /** Whether visitors share carriers. */
  readonly streams: boolean
  /** Bytes a second. */
  readonly rate: number
}

/** What comes until the first chunk with the end of a line, or until the end: it may come in several chunks. */
const readLine = (connection: Connection, before = ""): Effect.Effect<string, TransportError> =>
  Effect.flatMap(connection.read, (chunk) => {
    if (Option.isNone(chunk)) return Effect.succeed(before)
    const text = before + textOf(chunk.value)
    return text.includes("\n") ? Effect.succeed(text) : readLine(connection, text)
  })

/** A crowd of slow visitors: the most bytes that were on their way for one of them, and how honest visitors fared among them. */
const crowd = ({ count, rate, readsEvery, receiver, slow, streams, window }: Crowd) =>
  SmallWorld.run({ link: { latency, window, segment: chunk.length } }, ({ connect, network, start }) =>
    Effect.gen(function* () {
      const held: Array<number> = []
      const send = (connection: Connection, id: number) =>
        Effect.forever(Effect.map(connection.write(chunk), () => (held[id] = (held[id] ?? 0) + chunk.length)))
      const read = (connection: Connection, id: number) =>
        Effect.forever(
          Effect.flatMap(readsEvery === "never" ? Effect.never : Effect.sleep(readsEvery), () =>
            Effect.map(connection.read, (bytes) => {
              held[id] = (held[id] ?? 0) - Option.match(bytes, { onNone: () => 0, onSome: ({ length }) => length })
            })
          )
        )
      const host = yield* Effect.provide(Transport, network.host("target"))
      const answer = (connection: Connection) =>
        Effect.gen(function* () {
          const question = yield* readLine(connection)
          const [, id] = /^slow (\d+)/.exec(question) ?? []
          if (id !== undefined) return yield* slow === "visitor" ? send(connection, +id) : read(connection, +id)
          yield* connection.write(utf8(`re:${question}`))
          yield* connection.end
        }).pipe(Effect.ignore)
      yield* Effect.forkScoped(serve(yield* host.listen(target), answer))
      const visitors = Address.make(receiver, 8080)
      const server = yield* start("server", {
        ...serverConfig,
        streams,
        rate,
        mode: receiver === "server" ? "receive" : "send",
        targets: [receiver === "server" ? visitors : target]
      })
      const client = yield* start("client", {
        ...clientConfig,
        rate,
        targets: [receiver === "client" ? visitors : target]
      })
      yield* server.ready
      yield* Effect.sleep("5 seconds")

      const honest = Effect.gen(function* () {
        const connection = yield* connect("visitor", visitors)
        yield* connection.write(utf8("honest"))
        yield* connection.end
        return textOf(yield* readAll(connection))
      }).pipe(
        Effect.scoped,
        Effect.timeoutTo({ duration: "2 seconds", onSuccess: (got) => got, onTimeout: () => "hung" })
      )
      const visitSlowly = (id: number) =>
        Effect.gen(function* () {
          const connection = yield* connect("visitor", visitors)
          yield* connection.write(utf8(`slow ${id}\n`))
          return yield* slow === "target" ? send(connection, id) : read(connection, id)
        }).pipe(Effect.ignore, Effect.forkScoped)

      const answers: Array<string> = []
      for (let id = 0; id < count; id++) {
        yield* visitSlowly(id)
        if (id % 4 === 3) answers.push(yield* honest)
      }
      for (let late = 0; late < 5; late++) answers.push(yield* Effect.delay(honest, "6 seconds"))
      yield* Effect.sleep("1 second")
      const { tcps } = yield* (receiver === "server" ? server : client).checkpoint
      return { answers: Array.from(new Set(answers)), most: Math.max(...held), tcps }
    }).pipe(Effect.scoped)
  )

describe("visitors and targets that do not read, or slowly", () => {
  it.prop(
    "hold a window and a chunk each where bytes are passed on, one slot each, and no other visitor waits for them",
    [
      FastCheck.record({
        receiver: FastCheck.constantFrom("server" as const, "client" as const),
        slow: FastCheck.constantFrom("visitor" as const, "target" as const),
        readsEvery: FastCheck.constantFrom("never" as const, "10 seconds" as const),
        count: FastCheck.integer({ min: 1, max: 24 }),
        window: FastCheck.integer({ min: 1, max: 16 }),
        streams: FastCheck.boolean(),
        rate: FastCheck.constantFrom(Infinity, 1_000_000)
      })
    ],
    ([drawn]) => {
      const { answers, most, tcps } = crowd(drawn)
      assert.deepStrictEqual(answers, ["re:honest"])
      assert.strictEqual(tcps, drawn.count)
      // Each of three connections has a window; each side has the chunk that it has read and not written. A stream has its
      // own window in place of the second, and each side a buffer on either side of it.
      const between = drawn.streams ? 4 * VisitorStream.firstWindow : drawn.window * chunk.length
      assert.isAtMost(most, (2 * drawn.window + 2) * chunk.length + between)
    },
    { fastCheck: { numRuns: runs(6, 60) } }
  )
})
