/**
 * The contract of `DatagramSocket`, as laws that every implementation has to keep.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Address from "../../src/core/Address.js"
import { type DatagramSocket, Transport, type TransportError } from "../../src/transport/Transport.js"
import type { World } from "./Transport.js"
import { runs } from "../Runs.js"
import { textOf, utf8 } from "../Bytes.js"

const here = Address.make("127.0.0.1", 0)

const pair = Effect.gen(function* () {
  const transport = yield* Transport
  const server = yield* transport.bind(here)
  const client = yield* transport.associate(server.address)
  return { transport, server, client }
})

const toServer = ({ address: peer }: DatagramSocket, ...texts: ReadonlyArray<string>) =>
  texts.map((text) => ({ peer, bytes: utf8(text) }))

/** Receives this many datagrams. */
const receive = (socket: DatagramSocket, count: number) =>
  Effect.gen(function* () {
    const all = []
    while (all.length < count) all.push(...(yield* socket.receive))
    return all
  })

const reasonOf = <A, R>(effect: Effect.Effect<A, TransportError, R>) =>
  Effect.match(effect, { onFailure: ({ reason }) => reason, onSuccess: () => "Success" as const })

export const suite = (name: string, world: World): unknown =>
  describe(name, () => {
    const law = (sentence: string, program: () => Effect.Effect<void, TransportError, Scope.Scope | Transport>) =>
      it.live(sentence, () => world.run(Effect.suspend(program)))

    it.live.prop(
      "keeps the boundaries and order of datagrams, including empty ones",
      [FastCheck.array(FastCheck.oneof(FastCheck.constant(0), FastCheck.nat(9000)), { minLength: 1, maxLength: 12 })],
      ([sizes]) =>
        world.run(
          Effect.gen(function* () {
            const { client, server } = yield* pair
            const sent = sizes.map((size, index) => ({
              peer: server.address,
              bytes: Uint8Array.from({ length: size }, (_, at) => (at * 7 + index) & 255)
            }))
            assert.strictEqual(yield* client.send(sent), 0)
            const received = yield* receive(server, sizes.length)
            assert.deepStrictEqual(
              received.map(({ bytes }) => Buffer.from(bytes).toString("base64")),
              sent.map(({ bytes }) => Buffer.from(bytes).toString("base64"))
            )
          })
        ),
      { fastCheck: { numRuns: runs(5, 20) } }
    )

    law("a reply reaches the sender at the address that its datagram came from", () =>
      Effect.gen(function* () {
        const { client, server, transport } = yield* pair
        const other = yield* transport.associate(server.address)
        yield* client.send(toServer(server, "one"))
        yield* other.send(toServer(server, "two"))
        const questions = yield* receive(server, 2)
        yield* server.send(questions.map(({ bytes, peer }) => ({ peer, bytes: utf8(`re:${textOf(bytes)}`) })))
        assert.deepStrictEqual(
          (yield* receive(client, 1)).map(({ bytes }) => textOf(bytes)),
          ["re:one"]
        )
        assert.deepStrictEqual(
          (yield* receive(other, 1)).map(({ bytes }) => textOf(bytes)),
          ["re:two"]
        )
      })
    )

    law("an associated socket receives from its peer only", () =>
      Effect.gen(function* () {
        const { client, server, transport } = yield* pair
        const other = yield* transport.bind(here)
        yield* client.send(toServer(server, "question"))
        const [question] = yield* receive(server, 1)
        if (question === undefined) return
        yield* other.send([{ peer: question.peer, bytes: utf8("lie") }])
        yield* server.send([{ peer: question.peer, bytes: utf8("answer") }])
        const [answer] = yield* receive(client, 1)
        assert.strictEqual(textOf(answer?.bytes ?? new Uint8Array(0)), "answer")
        assert.strictEqual(String(answer?.peer), String(server.address))
      })
    )

    law("an associated socket fails with Refused for a closed port, and receives once the port is open", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        const scope = yield* Scope.make()
        const { address } = yield* Scope.extend(transport.bind(here), scope)
        yield* Scope.close(scope, Exit.void)
        const client = yield* transport.associate(address)
        const hello = [{ peer: address, bytes: utf8("hello") }]
        yield* client.send(hello)
        assert.strictEqual(yield* reasonOf(client.receive), "Refused")
        const server = yield* transport.bind(address)
        yield* client.send(hello)
        const [question] = yield* receive(server, 1)
        assert.strictEqual(textOf(question?.bytes ?? new Uint8Array(0)), "hello")
      })
    )

    law("port 0 becomes a real port, which is in use until the socket is closed", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        const scope = yield* Scope.make()
        const { address } = yield* Scope.extend(transport.bind(here), scope)
        assert.isAbove(address.port, 0)
        assert.strictEqual(yield* reasonOf(transport.bind(address)), "AddressInUse")
        yield* Scope.close(scope, Exit.void)
        const again = yield* transport.bind(address)
        assert.strictEqual(again.address.port, address.port)
      })
    )

    law("fails with UnknownHost for an unknown name", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        assert.strictEqual(yield* reasonOf(transport.associate(Address.make("nobody.invalid", 53))), "UnknownHost")
      })
    )

    law("an interrupted receive has taken nothing", () =>
      Effect.gen(function* () {
        const { client, server } = yield* pair
        for (let turn = 0; turn < 20; turn++) {
          const waiting = yield* Effect.fork(server.receive)
          yield* Effect.yieldNow()
          yield* client.send(toServer(server, String(turn)))
          const exit = yield* Fiber.interrupt(waiting)
          const [datagram] = Exit.isSuccess(exit) ? exit.value : yield* receive(server, 1)
          assert.strictEqual(textOf(datagram?.bytes ?? new Uint8Array(0)), String(turn))
        }
      })
    )

    law("buffers a bounded number of bytes, and drops the newest datagrams", () =>
      Effect.gen(function* () {
        const { client, server } = yield* pair
        const large = new Uint8Array(8000)
        for (let turn = 0; turn < 400; turn++) {
          large.fill(turn & 255)
          yield* client.send([{ peer: server.address, bytes: large.slice() }])
        }
        yield* client.send(toServer(server, "late"))
        const received = yield* server.receive
        const bytes = received.reduce((sum, { bytes }) => sum + bytes.length, 0)
        assert.isAtMost(bytes, 1024 * 1024)
        assert.strictEqual(received[0]?.bytes[0], 0)
      })
    )

    law("a wildcard port receives from this machine", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        const server = yield* transport.bind(Address.make("", 0))
        const client = yield* transport.associate(Address.make("127.0.0.1", server.address.port))
        yield* client.send(toServer(server, "hello"))
        const [question] = yield* receive(server, 1)
        assert.strictEqual(question?.peer.host, "127.0.0.1")
        yield* server.send(question === undefined ? [] : [{ peer: question.peer, bytes: question.bytes }])
        assert.strictEqual((yield* receive(client, 1)).length, 1)
      })
    )

    law("closing the scope ends a receive that waits", () =>
      Effect.gen(function* () {
        const transport = yield* Transport
        const scope = yield* Scope.make()
        const socket = yield* Scope.extend(transport.bind(here), scope)
        const waiting = yield* Effect.fork(Effect.interruptible(socket.receive))
        yield* Effect.yieldNow()
        yield* Scope.close(scope, Exit.void)
        yield* Fiber.interrupt(waiting)
        assert.strictEqual(yield* socket.send([{ peer: here, bytes: new Uint8Array(1) }]), 1)
      })
    )
  })
