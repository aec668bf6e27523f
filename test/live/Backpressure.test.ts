import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Net from "node:net"
import * as Address from "../../src/core/Address.js"
import * as Meter from "../../src/relay/Meter.js"
import * as NodeConnection from "../../src/node/socket/NodeConnection.js"
import * as NodeTransport from "../../src/node/socket/NodeTransport.js"
import * as PortableRelay from "../../src/relay/PortableRelay.js"
import * as Relay from "../../src/relay/Relay.js"
import * as Throttle from "../../src/relay/Throttle.js"
import { type Connection, Transport } from "../../src/transport/Transport.js"

const KiB = 1024

/** Bytes of a connection that this process holds. */
const heldBytes = (connection: Connection) => {
  const { socket } = NodeConnection.underlying(connection) ?? assert.fail("not a connection of Node")
  return { read: socket.readableLength, written: socket.writableLength }
}

const relay = PortableRelay.layer().pipe(Layer.provideMerge(Layer.merge(Meter.layer, Throttle.layer())))

/** Relays between two plain sockets. The near one writes until it must wait, and nothing reads from the far one. */
const writeUntilFull = (bufferLimit: number) =>
  Effect.gen(function* () {
    const transport = yield* Transport
    const services = yield* Layer.build(relay)
    const { traffic } = Context.get(services, Meter.Meter)
    const listener = yield* transport.listen(Address.make("127.0.0.1", 0))
    const open = Effect.acquireRelease(
      Effect.sync(() =>
        Net.connect(listener.address.port, "127.0.0.1")
          .on("error", () => undefined)
          .pause()
      ),
      (socket) => Effect.sync(() => socket.destroy())
    )
    const visitor = yield* open
    const near = yield* listener.accept
    yield* open
    const far = yield* listener.accept
    yield* Effect.forkScoped(Context.get(services, Relay.Relay).exchange(near, far))
    const chunk = Buffer.alloc(64 * KiB)
    const write = () => {
      while (visitor.writableLength < 1024 * KiB && !visitor.destroyed) visitor.write(chunk)
    }
    visitor.on("drain", write)
    write()
    // Until nothing moves: the kernel is full, and so are the buffers of this process.
    for (let before = -1; before !== traffic.tcpTx;) {
      before = traffic.tcpTx
      yield* Effect.sleep("150 millis")
    }
    return { moved: traffic.tcpTx, near: heldBytes(near), far: heldBytes(far) }
  }).pipe(Effect.scoped, Effect.provide(NodeTransport.layerWith({ bufferLimit })))

describe("backpressure", () => {
  it.live.each([256 * KiB, 64 * KiB])(
    "while the far side does not read, each direction holds at most its limit of %i bytes and one chunk",
    (limit) =>
      Effect.gen(function* () {
        const { far, moved, near } = yield* writeUntilFull(limit)
        assert.isAbove(moved, 0)
        assert.isAtMost(near.read, limit + 64 * KiB)
        assert.isAtMost(far.written, limit + 64 * KiB)
      })
  )
})
