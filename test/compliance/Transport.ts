/**
 * The contract of `Transport`, as laws that every implementation has to keep.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as FiberStatus from "effect/FiberStatus"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Address from "../../src/core/Address.js"
import { type Connection, type Listener, serve, Transport, type TransportError } from "../../src/transport/Transport.js"
import { runs } from "../Runs.js"
import { readLength, utf8 } from "../Bytes.js"

export interface World {
  /** Runs a program, closes its scopes, and fails when anything is still open. */
  readonly run: (program: Effect.Effect<void, TransportError, Scope.Scope | Transport>) => Effect.Effect<void>
  /** More than a connection accepts while its peer does not read: chunks, bytes in each, and the bytes it may accept at most. */
  readonly flood: { readonly chunks: number; readonly bytes: number; readonly limit: number }
}

const here = Address.make("127.0.0.1", 0)

interface Ends {
  readonly client: Connection
  readonly server: Connection
  readonly clientScope: Scope.CloseableScope
  readonly serverScope: Scope.CloseableScope
}

const forkScope: Effect.Effect<Scope.CloseableScope, never, Scope.Scope> = Effect.acquireRelease(
  Scope.make(),
  Scope.close
)

/** An accepted connection, each end in a scope of its own within this one. */
const connected: Effect.Effect<Ends, TransportError, Scope.Scope | Transport> = Effect.gen(function* () {
  const transport = yield* Transport
  const listener = yield* transport.listen(here)
  const serverScope = yield* forkScope
  const clientScope = yield* forkScope
  const accepting = yield* Effect.fork(Scope.extend(listener.accept, serverScope))
  const client = yield* Scope.extend(transport.connect(listener.address), clientScope)
  return { client, server: yield* Fiber.join(accepting), clientScope, serverScope }
})

/** Bytes whose values depend on their position. */
const pattern = (length: number): Uint8Array => {
  const bytes = new Uint8Array(length)
  for (let index = 0; index < length; index++) bytes[index] = (index * 31 + (index >> 8)) & 255
  return bytes
}

const readAll = (connection: Connection): Effect.Effect<Uint8Array, TransportError> =>
  Effect.gen(function* () {
    const parts: Array<Uint8Array> = []
    for (;;) {
      const chunk = yield* connection.read
      if (Option.isNone(chunk)) return Buffer.concat(parts)
      assert.isAbove(chunk.value.length, 0)
      parts.push(chunk.value)
    }
  })

const writeAll = (connection: Connection, bytes: Uint8Array, lengths: ReadonlyArray<number>) =>
  Effect.gen(function* () {
    for (let at = 0, turn = 0; at < bytes.length; turn++) {
      const length = lengths[turn % lengths.length] ?? 1
      yield* connection.write(bytes.slice(at, at + length))
      at += length
    }
    yield* connection.end
  })

/** Completes once the fiber waits. */
const parked = <A, E>(fiber: Fiber.RuntimeFiber<A, E>): Effect.Effect<unknown> =>
  Effect.repeat(Effect.zipRight(Effect.yieldNow(), Fiber.status(fiber)), {
    until: (status) => FiberStatus.isSuspended(status)
  })

/** Completes with what the next read will return, and reads nothing. */
export const readable = (connection: Connection): Effect.Effect<"Bytes" | "End" | "Failure"> =>
  Effect.flatMap(Deferred.make<"Bytes" | "End" | "Failure">(), (seen) =>
    Effect.acquireUseRelease(
      connection.watch((what) => Deferred.unsafeDone(seen, Effect.succeed(what))),
      () => Deferred.await(seen),
      (cancel) => cancel
    )
  )

const reasonOf = <A>(effect: Effect.Effect<A, TransportError>) =>
  Effect.match(effect, { onFailure: (error) => error.reason, onSuccess: () => "Success" as const })

const failureOf = <A, R>(effect: Effect.Effect<A, TransportError, R>): Effect.Effect<TransportError, never, R> =>
  Effect.matchEffect(effect, { onFailure: Effect.succeed, onSuccess: () => Effect.dieMessage("it succeeded") })

/** Writes until a write fails, and returns why. */
const writeOn = (connection: Connection) => reasonOf(Effect.forever(connection.write(pattern(10_000))))

/** Reads until a read fails or the stream ends, and returns which. */
const readOn = (connection: Connection) => reasonOf(readAll(connection))

const echo = (connection: Connection): Effect.Effect<void> =>
  Effect.ignore(
    Effect.forever(
      Effect.flatMap(
        connection.read,
        Option.match({
          onNone: () => Effect.fail("End" as const),
          onSome: (chunk): Effect.Effect<void, TransportError | "End"> => connection.write(chunk)
        })
      )
    )
  )

const greet = (listener: Listener) =>
  Effect.gen(function* () {
    const client = yield* (yield* Transport).connect(listener.address)
    yield* client.write(utf8("hello"))
    assert.strictEqual(yield* readLength(client, 5), "hello")
    return client
  })

const lengths = FastCheck.array(FastCheck.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 20 })

const lawOf =
  (world: World) =>
  (sentence: string, program: () => Effect.Effect<void, TransportError, Scope.Scope | Transport>): void =>
    it.live(sentence, () => world.run(Effect.suspend(program)))

export const suite = (name: string, world: World): unknown =>
  describe(name, () => {
    const law = lawOf(world)

    it.live.prop(
      "delivers bytes complete and in order, in both directions at once, whatever the sizes of writes",
      [FastCheck.nat(30_000), FastCheck.nat(30_000), lengths, lengths],
      ([up, down, upLengths, downLengths]) =>
        world.run(
          Effect.gen(function* () {
            const { client, server } = yield* connected
            const [, , atServer, atClient] = yield* Effect.all(
              [
                writeAll(client, pattern(up), upLengths),
                writeAll(server, pattern(down), downLengths),
                readAll(server),
                readAll(client)
              ],
              { concurrency: "unbounded" }
            )
            assert.isTrue(Buffer.from(pattern(up)).equals(atServer))
            assert.isTrue(Buffer.from(pattern(down)).equals(atClient))
          })
        ),
      { fastCheck: { numRuns: runs(5, 20) } }
    )

    law("gives each side its own address and the other's", () =>
      Effect.gen(function* () {
        const { client, server } = yield* connected
        assert.strictEqual(String(client.local), String(server.remote))
        assert.strictEqual(String(client.remote), String(server.local))
        assert.strictEqual(client.remote.host, "127.0.0.1")
      })
    )

    law("gives each listener on port 0 a port of its own", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        const [one, two] = yield* Effect.all([transport.listen(here), transport.listen(here)])
        assert.isAbove(one.address.port, 0)
        assert.notStrictEqual(one.address.port, two.address.port)
      })
    )

    for (const half of ["client", "server"] as const) {
      law(`after the ${half} half-closes, the other side can still send`, () =>
        Effect.gen(function* () {
          const ends = yield* connected
          const [first, second] = half === "client" ? [ends.client, ends.server] : [ends.server, ends.client]
          yield* first.write(utf8("question"))
          yield* first.end
          assert.deepStrictEqual(Buffer.from(yield* readAll(second)).toString(), "question")
          yield* second.write(utf8("answer"))
          yield* second.end
          assert.deepStrictEqual(Buffer.from(yield* readAll(first)).toString(), "answer")
        })
      )
    }

    law("unsent falls while the peer reads", () =>
      Effect.gen(function* () {
        const { client, server } = yield* connected
        assert.strictEqual(client.unsent(), 0)
        const writing = yield* Effect.fork(Effect.forever(client.write(pattern(world.flood.bytes))))
        yield* Effect.repeat(Effect.yieldNow(), { until: () => client.unsent() > 0 })
        const before = client.unsent()
        yield* Effect.repeat(server.read, { until: () => client.unsent() !== before })
        yield* Fiber.interrupt(writing)
      })
    )

    law("read and watch report the end again and again", () =>
      Effect.gen(function* () {
        const { client, server } = yield* connected
        yield* client.end
        for (let turn = 0; turn < 3; turn++) {
          assert.strictEqual(yield* readable(server), "End")
          assert.isTrue(Option.isNone(yield* server.read))
        }
        yield* server.end
        assert.isTrue(Option.isNone(yield* client.read))
        assert.isTrue(Option.isNone(yield* server.read))
      })
    )

    law("a second end does nothing, and a write after end fails with Closed", () =>
      Effect.gen(function* () {
        const { client, server } = yield* connected
        yield* client.end
        yield* client.end
        assert.strictEqual(yield* reasonOf(client.write(utf8("late"))), "Closed")
        assert.isTrue(Option.isNone(yield* server.read))
        yield* server.end
        yield* client.end
      })
    )

    law("a watch reports what read will return, before it arrives and after, and takes nothing", () =>
      Effect.gen(function* () {
        const { client, server } = yield* connected
        const watching = yield* Effect.fork(readable(server))
        yield* parked(watching)
        yield* client.write(utf8("bytes"))
        assert.strictEqual(yield* Fiber.join(watching), "Bytes")
        assert.strictEqual(yield* readable(server), "Bytes")
        yield* client.end
        assert.strictEqual(yield* readLength(server, 5), "bytes")
        assert.strictEqual(yield* readable(server), "End")
      })
    )

    law("a watch calls once and takes nothing, and does not call after it is cancelled", () =>
      Effect.gen(function* () {
        const { client, server } = yield* connected
        const reports: Array<string> = []
        const reported = yield* Effect.makeLatch(false)
        const watch = (connection: Connection) =>
          Effect.suspend(() => {
            reported.unsafeClose()
            return connection.watch((what) => {
              reports.push(what)
              reported.unsafeOpen()
            })
          })
        yield* yield* watch(server)
        const over = yield* watch(server)
        yield* client.write(utf8("bytes"))
        yield* reported.await
        yield* over
        assert.strictEqual(yield* readLength(server, 5), "bytes")
        yield* Effect.asVoid(watch(server))
        yield* client.end
        yield* reported.await
        assert.isTrue(Option.isNone(yield* server.read))
        yield* Effect.asVoid(watch(server))
        yield* reported.await
        yield* Effect.asVoid(watch(client))
        yield* server.reset
        yield* reported.await
        assert.deepStrictEqual(reports, ["Bytes", "End", "End", "Failure"])
      })
    )

    it.live.prop(
      "a read or watch that is interrupted while it waits has taken nothing",
      [FastCheck.array(FastCheck.tuple(FastCheck.boolean(), FastCheck.nat(3)), { maxLength: 30 })],
      ([waits]) =>
        world.run(
          Effect.gen(function* () {
            const { client, server } = yield* connected
            for (const [watches, yields] of waits) {
              const waiting = yield* Effect.fork(watches ? Effect.asVoid(readable(server)) : Effect.asVoid(server.read))
              for (let turn = 0; turn < yields; turn++) yield* Effect.yieldNow()
              yield* Fiber.interrupt(waiting)
            }
            const writing = yield* Effect.fork(writeAll(client, pattern(20_000), [700]))
            for (const [, yields] of waits) {
              const waiting = yield* Effect.fork(readable(server))
              for (let turn = 0; turn < yields; turn++) yield* Effect.yieldNow()
              yield* Fiber.interrupt(waiting)
            }
            assert.isTrue(Buffer.from(pattern(20_000)).equals(yield* readAll(server)))
            yield* Fiber.join(writing)
          })
        ),
      { fastCheck: { numRuns: runs(5, 20) } }
    )

    law("returns bytes that were put back first, the last put back before the others", () =>
      Effect.gen(function* () {
        const { client, server } = yield* connected
        yield* client.write(utf8("world"))
        yield* client.end
        assert.strictEqual(yield* readable(server), "Bytes")
        server.unread(utf8("lo "))
        server.unread(utf8("hel"))
        server.unread(utf8(""))
        assert.strictEqual(yield* readable(server), "Bytes")
        assert.strictEqual(Buffer.from(yield* readAll(server)).toString(), "hello world")
        server.unread(utf8("again"))
        assert.strictEqual(yield* readable(server), "Bytes")
        assert.strictEqual(Buffer.from(yield* readAll(server)).toString(), "again")
      })
    )

    law("writes wait while the other side does not read, and arrive complete once it does", () =>
      Effect.gen(function* () {
        const { bytes, chunks, limit } = world.flood
        const { client, server } = yield* connected
        let accepted = 0
        const chunk = pattern(bytes)
        const write = Effect.map(client.write(chunk), () => {
          accepted += bytes
        })
        const writing = yield* Effect.fork(Effect.zipRight(Effect.repeatN(write, chunks - 1), client.end))
        // After this many exchanges on another connection, every write that will complete has completed.
        const other = yield* connected
        yield* Effect.fork(echo(other.server))
        for (let turn = 0; turn < 200; turn++) {
          yield* other.client.write(utf8("ping"))
          yield* readLength(other.client, 4)
        }
        assert.isAtMost(accepted, limit)
        let received = 0
        for (let read = yield* server.read; Option.isSome(read); read = yield* server.read) {
          assert.strictEqual(read.value[0], chunk[received % bytes])
          received += read.value.length
        }
        assert.strictEqual(received, chunks * bytes)
        yield* Fiber.join(writing)
      })
    )

    law("loses nothing when the scope closes after end has completed", () =>
      Effect.gen(function* () {
        const { client, clientScope, server } = yield* connected
        const body = pattern((world.flood.bytes * world.flood.chunks) / 4)
        const sending = yield* Effect.fork(
          Effect.zipRight(writeAll(client, body, [world.flood.bytes]), Scope.close(clientScope, Exit.void))
        )
        assert.isTrue(Buffer.from(body).equals(yield* readAll(server)))
        yield* Fiber.join(sending)
      })
    )

    law("the peer of a reset fails with Reset, in reads and writes, from then on", () =>
      Effect.gen(function* () {
        const { client, server } = yield* connected
        const reading = yield* Effect.fork(readOn(server))
        yield* parked(reading)
        yield* client.reset
        assert.strictEqual(yield* Fiber.join(reading), "Reset")
        assert.strictEqual(yield* reasonOf(server.read), "Reset")
        assert.strictEqual(yield* readable(server), "Failure")
        assert.strictEqual(yield* writeOn(server), "Reset")
      })
    )

    law("a reset right after bytes is no end", () =>
      Effect.gen(function* () {
        const { client, server } = yield* connected
        const reading = yield* Effect.fork(readOn(server))
        yield* parked(reading)
        yield* client.write(utf8("bytes"))
        yield* client.reset
        assert.strictEqual(yield* Fiber.join(reading), "Reset")
        assert.strictEqual(yield* reasonOf(server.read), "Reset")
      })
    )

    law("the side that resets fails too from then on, and so does a read that waits", () =>
      Effect.gen(function* () {
        const { client, server } = yield* connected
        const reading = yield* Effect.fork(readOn(client))
        yield* parked(reading)
        yield* server.write(utf8("unread"))
        yield* client.reset
        yield* client.reset
        assert.include(["Reset", "Closed"], yield* Fiber.join(reading))
        assert.include(["Reset", "Closed"], yield* reasonOf(client.read))
        assert.strictEqual(yield* readable(client), "Failure")
        assert.include(["Reset", "Closed"], yield* reasonOf(client.write(utf8("x"))))
        assert.include(["Reset", "Closed"], yield* reasonOf(client.end))
      })
    )

    law("a write that waits fails when the connection is reset", () =>
      Effect.gen(function* () {
        const { client, server } = yield* connected
        const writing = yield* Effect.fork(writeOn(client))
        yield* parked(writing)
        yield* server.reset
        assert.strictEqual(yield* Fiber.join(writing), "Reset")
      })
    )

    law("a write to a side that has closed fails with Reset", () =>
      Effect.gen(function* () {
        const { client, server, serverScope } = yield* connected
        yield* client.write(utf8("ping"))
        yield* readLength(server, 4)
        yield* Scope.close(serverScope, Exit.void)
        assert.strictEqual(yield* writeOn(client), "Reset")
      })
    )

    law("closing the scope of a connection is an end for the peer", () =>
      Effect.gen(function* () {
        const { client, server, serverScope } = yield* connected
        const reading = yield* Effect.fork(client.read)
        yield* parked(reading)
        yield* Scope.close(serverScope, Exit.void)
        assert.isTrue(Option.isNone(yield* Fiber.join(reading)))
        assert.strictEqual(yield* reasonOf(server.read), "Closed")
        assert.strictEqual(yield* readable(server), "Failure")
        assert.strictEqual(yield* reasonOf(server.write(utf8("x"))), "Closed")
      })
    )

    law("a connect to a closed port fails with Refused, even if it was open before", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        const { address } = yield* Effect.scoped(transport.listen(here))
        const error = yield* failureOf(transport.connect(address))
        assert.deepStrictEqual(
          [error.operation, error.reason, String(error.address)],
          ["connect", "Refused", String(address)]
        )
      })
    )

    law("a connect to an unknown name fails with UnknownHost", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        assert.strictEqual(
          yield* reasonOf(Effect.scoped(transport.connect(Address.make("nobody.invalid", 1)))),
          "UnknownHost"
        )
      })
    )

    law("a port is in use while its listener is open, and free afterwards", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        const scope = yield* forkScope
        const first = yield* Scope.extend(transport.listen(here), scope)
        const error = yield* failureOf(transport.listen(first.address))
        assert.deepStrictEqual(
          [error.operation, error.reason, String(error.address)],
          ["listen", "AddressInUse", String(first.address)]
        )
        yield* Scope.close(scope, Exit.void)
        const second = yield* transport.listen(first.address)
        assert.strictEqual(second.address.port, first.address.port)
      })
    )

    law("a listener on an address of another machine fails with AddressUnavailable", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        assert.strictEqual(
          yield* reasonOf(Effect.scoped(transport.listen(Address.make("192.0.2.1", 0)))),
          "AddressUnavailable"
        )
      })
    )

    law("closing a listener closes connections that were not accepted, and no others", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        const scope = yield* forkScope
        const listener = yield* Scope.extend(transport.listen(here), scope)
        const first = yield* transport.connect(listener.address)
        const server = yield* listener.accept
        const second = yield* transport.connect(listener.address)
        const reading = yield* Effect.fork(readOn(second))
        yield* parked(reading)
        yield* Scope.close(scope, Exit.void)
        assert.include(["Success", "Reset"], yield* Fiber.join(reading))
        yield* server.write(utf8("still here"))
        assert.strictEqual(yield* readLength(first, 10), "still here")
      })
    )

    law("accepts connections in order of arrival", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        const listener = yield* transport.listen(here)
        for (const name of ["1", "2", "3"]) {
          const client = yield* transport.connect(listener.address)
          yield* client.write(utf8(name))
        }
        for (const name of ["1", "2", "3"]) assert.strictEqual(yield* readLength(yield* listener.accept, 1), name)
      })
    )

    law("an interrupted accept takes no connection", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        const listener = yield* transport.listen(here)
        const accepting = yield* Effect.fork(Effect.scoped(listener.accept))
        yield* parked(accepting)
        yield* Fiber.interrupt(accepting)
        const client = yield* transport.connect(listener.address)
        yield* client.write(utf8("hello"))
        assert.strictEqual(yield* readLength(yield* listener.accept, 5), "hello")
      })
    )

    law("connections that are reset before they are accepted do not stop the listener", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        const listener = yield* transport.listen(here)
        for (let turn = 0; turn < 20; turn++) {
          yield* Effect.scoped(Effect.flatMap(transport.connect(listener.address), (client) => client.reset))
        }
        yield* Effect.forkScoped(serve(listener, echo))
        yield* greet(listener)
      })
    )

    law("an interrupted connect leaves nothing behind", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        const listener = yield* transport.listen(here)
        yield* Effect.forkScoped(serve(listener, echo))
        for (let yields = 0; yields < 10; yields++) {
          const connecting = yield* Effect.fork(transport.connect(listener.address))
          for (let turn = 0; turn < yields; turn++) yield* Effect.yieldNow()
          yield* Fiber.interrupt(connecting)
        }
        yield* greet(listener)
      })
    )

    law("a peer that `admit` refuses is reset, and the others are accepted in order", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        let asked = 0
        const listener = yield* transport.listen(here, {
          admit: ({ host }) => {
            assert.strictEqual(host, "127.0.0.1")
            return ++asked % 3 === 0
          }
        })
        yield* Effect.forkScoped(serve(listener, echo))
        for (let count = 1; count <= 90; count++) {
          // The reset may come before the connection is seen to be open, and before the bytes are written, or later.
          const answer = Effect.flatMap(transport.connect(listener.address), ({ read, write }) =>
            Effect.zipRight(Effect.ignore(write(utf8("hello"))), read)
          )
          assert.include(count % 3 === 0 ? ["Success"] : ["Reset", "Closed"], yield* reasonOf(Effect.scoped(answer)))
        }
        assert.strictEqual(asked, 90)
      })
    )

    law("inspect, where there is one, measures the round trip, and knows of a reset before it is read", () =>
      Effect.gen(function* () {
        const { client, server } = yield* connected
        if (client.inspect === undefined) return
        yield* client.write(utf8("hello"))
        assert.strictEqual(yield* readLength(server, 5), "hello")
        const { roundTripMillis, state } = client.inspect()
        assert.strictEqual(state, "open")
        assert.isAbove(roundTripMillis ?? 0, 0)
        yield* server.reset
        // No turn of the event loop, in which the connection could learn it in another way.
        for (const begin = performance.now(); client.inspect().state !== "over";)
          assert.isBelow(performance.now() - begin, 5000)
        assert.strictEqual(server.inspect?.().state, "over")
      })
    )

    law("serve closes a connection when its handler ends, and every connection when its scope closes", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        const listener = yield* transport.listen(here)
        const scope = yield* forkScope
        let running = 0
        const handler = (connection: Connection) =>
          Effect.ensuring(
            Effect.suspend(() => {
              running++
              return echo(connection)
            }),
            Effect.sync(() => running--)
          )
        const serving = yield* Effect.fork(Scope.extend(serve(listener, handler), scope))
        const first = yield* greet(listener)
        const second = yield* greet(listener)
        assert.strictEqual(running, 2)
        yield* first.end
        assert.isTrue(Option.isNone(yield* first.read))
        assert.strictEqual(running, 1)
        const reading = yield* Effect.fork(readOn(second))
        yield* parked(reading)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(running, 0)
        assert.strictEqual(yield* Fiber.join(reading), "Success")
        yield* Fiber.interrupt(serving)
      })
    )

    law("interrupting serve stops accepting, and running handlers continue", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        const listener = yield* transport.listen(here)
        const handled = yield* Deferred.make<void>()
        const serving = yield* Effect.fork(
          serve(listener, (connection) => Effect.zipRight(Deferred.succeed(handled, undefined), echo(connection)))
        )
        const client = yield* transport.connect(listener.address)
        yield* Deferred.await(handled)
        yield* Fiber.interrupt(serving)
        yield* client.write(utf8("hello"))
        assert.strictEqual(yield* readLength(client, 5), "hello")
        const late = yield* transport.connect(listener.address)
        yield* late.write(utf8("late"))
        assert.strictEqual(yield* readLength(yield* listener.accept, 4), "late")
      })
    )
  })
