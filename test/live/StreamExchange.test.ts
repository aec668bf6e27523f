import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { once } from "node:events"
import { Worker } from "node:worker_threads"
import * as Address from "../../src/core/Address.js"
import { kernel } from "../../src/node/kernel/Kernel.js"
import * as KernelConnection from "../../src/node/kernel/KernelConnection.js"
import type { KernelExchange } from "../../src/node/kernel/KernelExchange.js"
import * as KernelTransport from "../../src/node/kernel/KernelTransport.js"
import * as StreamExchange from "../../src/node/kernel/StreamExchange.js"
import { PooledConnection } from "../../src/stream/PooledConnection.js"
import { StreamConnection } from "../../src/stream/StreamConnection.js"
import * as StreamFrame from "../../src/stream/StreamFrame.js"
import type { Listener, VisitorStream } from "../../src/stream/VisitorStream.js"
import { Transport } from "../../src/transport/Transport.js"

const layer = Layer.effect(
  Transport,
  Effect.map(Effect.orDie(kernel), (kernel) => KernelTransport.make({ kernel }))
)
const address = Address.make("127.0.0.1", 1)

const neverMoved = (): KernelExchange => {
  throw new Error("moved")
}

/** An exchange between a socket and a stream that the test plays. */
const exchange = (idleMillis: number, begin: StreamExchange.Options["begin"] = neverMoved) =>
  Effect.gen(function* () {
    const transport = yield* Transport
    const listener = yield* transport.listen(Address.make("127.0.0.1", 0))
    const near = KernelConnection.socketOf(yield* transport.connect(listener.address))
    if (near === undefined) throw new Error("not a socket of the kernel")
    const far = new StreamConnection(address, address)
    const resets: Array<number | undefined> = []
    const stream = { sentBytes: 0, receivedBytes: 0, pending: { size: 0 } }
    let joined: Listener | undefined
    far.bind({
      reset: (code) => resets.push(code),
      connect: (_, listener) => {
        joined = listener
        return stream as VisitorStream
      }
    })
    const running = StreamExchange.begin({ idleMillis, begin }, near, far)
    if (running === undefined || joined === undefined) throw new Error("not joined")
    return { far, listener: joined, resets, running, stream }
  })

describe.runIf(process.platform === "linux")("an exchange between a socket and a stream", () => {
  it.scoped("is idle where this side has reset it for that, and broken where the other side has", () =>
    Effect.gen(function* () {
      const results: Array<unknown> = []
      for (const by of ["us", "them"] as const) {
        const { listener, running } = yield* exchange(Infinity)
        listener.ended({ _tag: "Reset", by, code: StreamFrame.resets.idle })
        running.onEnd(({ _tag }) => results.push(_tag))
      }
      assert.deepStrictEqual(results, ["Idle", "Broken"])
    }).pipe(Effect.provide(layer))
  )

  it.scoped("is not idle while a slow reader takes what has come", () =>
    Effect.gen(function* () {
      const { resets, running, stream } = yield* exchange(1000)
      for (let left = 10; left >= 0; left--) {
        stream.pending.size = left * 1000
        running.tick(500)
      }
      assert.deepStrictEqual(resets, [])
      running.tick(500)
      running.tick(500)
      assert.deepStrictEqual(resets, [StreamFrame.resets.idle])
    }).pipe(Effect.provide(layer))
  )

  it.scoped("goes on over the pool connection that its stream is moved to", () =>
    Effect.gen(function* () {
      const moved: Array<ReadonlyArray<Uint8Array>> = []
      const inner = { onEnd: () => undefined } as Partial<KernelExchange> as KernelExchange
      const { far, listener } = yield* exchange(Infinity, (sockets) => {
        moved.push(sockets.map(({ buffered }) => buffered))
        return inner
      })
      const transport = yield* Transport
      const port = yield* transport.listen(Address.make("127.0.0.1", 0))
      const connection = yield* transport.connect(port.address)
      const pooled = new PooledConnection({ reset: () => undefined, release: () => undefined, connection })
      listener.moved?.(far.carrierEnd, pooled, new Uint8Array([1, 2]))
      assert.deepStrictEqual(moved, [[new Uint8Array(), new Uint8Array([1, 2])]])
    }).pipe(Effect.provide(layer))
  )

  it.scoped("accepts no move to a pool connection that the kernel's exchange cannot use", () =>
    Effect.gen(function* () {
      const { far, listener } = yield* exchange(Infinity)
      const transport = yield* Transport
      const port = yield* transport.listen(Address.make("127.0.0.1", 0))
      const options = { reset: () => undefined, release: () => undefined }
      const connections = [far, yield* transport.connect(port.address)]
      const accepted = connections.map((connection) =>
        listener.accepts?.(new PooledConnection({ ...options, connection }))
      )
      assert.deepStrictEqual(accepted, [false, true])
    }).pipe(Effect.provide(layer))
  )
})

/** Accepts one connection in another thread, sends, ends, and sets `shared[0]`. Its first message is its port. */
const hasty = `
  const { parentPort, workerData } = require("node:worker_threads")
  const shared = new Int32Array(workerData)
  const done = () => { Atomics.store(shared, 0, 1); Atomics.notify(shared, 0) }
  const server = require("node:net").createServer((socket) => {
    socket.on("error", () => undefined)
    socket.end("bye", done)
    server.close()
  })
  server.listen(0, "127.0.0.1", () => parentPort.postMessage(server.address().port))
`

describe.runIf(process.platform === "linux")("a connection of the kernel", () => {
  it.scopedLive("finds the end of a peer that has sent and ended before the poller reports the connection", () =>
    Effect.gen(function* () {
      const shared = new Int32Array(new SharedArrayBuffer(4))
      const worker = new Worker(hasty, { eval: true, workerData: shared.buffer })
      yield* Effect.addFinalizer(() => Effect.promise(() => worker.terminate()))
      const [port] = yield* Effect.promise(() => once(worker, "message"))
      const transport = yield* Transport
      const connecting = yield* Effect.fork(transport.connect(Address.make("127.0.0.1", port)))
      // Not before the attempt has begun, and from then on without a turn of the loop.
      yield* Effect.yieldNow()
      Atomics.wait(shared, 0, 0, 5000)
      const connection = yield* connecting
      const nonBlocking = connection.nonBlocking?.()
      const bytes = new Uint8Array(64)
      const ended = yield* Effect.async<boolean>((resume) => {
        const read = () => {
          for (;;) {
            const count = nonBlocking?.read(bytes, 0, bytes.length) ?? -2
            if (count === 0) return resume(Effect.succeed(true))
            if (count < 0) return
          }
        }
        nonBlocking?.setOwner({ ready: read })
        read()
      }).pipe(Effect.timeoutOption(Duration.seconds(5)))
      assert.isTrue(Option.getOrElse(ended, () => false))
    }).pipe(Effect.provide(layer))
  )
})
