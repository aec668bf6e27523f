/**
 * Thousands of visitors on a real tunnel whose relay threads are killed again and again.
 *
 * Each visitor asks for an echo and checks every byte. Some reset, some close early, some read slowly. At the end no visitor
 * is being served, and the process has as many descriptors as before.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Schedule from "effect/Schedule"
import * as Fs from "node:fs"
import * as Net from "node:net"
import { kernel } from "../../src/node/kernel/Kernel.js"
import * as KernelRelay from "../../src/node/kernel/KernelRelay.js"
import * as KernelTransport from "../../src/node/kernel/KernelTransport.js"
import * as Reactor from "../../src/node/kernel/Reactor.js"
import * as NodeCertificates from "../../src/node/socket/NodeCertificates.js"
import * as NodeCrypto from "../../src/node/process/NodeCrypto.js"
import { RelayFactory } from "../../src/relay/RelayFactory.js"
import * as Settings from "../../src/transport/Settings.js"
import { Transport } from "../../src/transport/Transport.js"
import * as Tunnel from "../../src/tunnel/Tunnel.js"
import * as TunnelUrl from "../../src/url/TunnelUrl.js"
import { freePort } from "../live/command/freePort.js"

export interface Options {
  readonly visitors: number
  readonly seed: number
  readonly tls: boolean
}

/** Returns whether every byte was right, no visitor is left and no descriptor was lost. */
export const run = (options: Options): Promise<boolean> =>
  soak(options).pipe(Effect.scoped, Effect.provide(Logger.minimumLogLevel(LogLevel.Error)), Effect.runPromise)

// internal

interface Visit {
  readonly bytes: number
  readonly behavior: "echoes" | "resets" | "closes" | "pauses"
}

const behavior = FastCheck.oneof(
  { weight: 12, arbitrary: FastCheck.constant("echoes" as const) },
  { weight: 1, arbitrary: FastCheck.constantFrom("resets" as const, "closes" as const, "pauses" as const) }
)
const bytes = FastCheck.oneof(
  { weight: 60, arbitrary: FastCheck.integer({ min: 1, max: 2000 }) },
  { weight: 6, arbitrary: FastCheck.integer({ min: 2000, max: 200_000 }) },
  { weight: 1, arbitrary: FastCheck.integer({ min: 200_000, max: 3_000_000 }) }
)
/** Used in turn, again and again. */
const drawVisits = (seed: number): ReadonlyArray<Visit> =>
  FastCheck.sample(FastCheck.record({ bytes, behavior }), { seed, numRuns: 997 })

const pattern = Buffer.from(Uint8Array.from({ length: 3_000_000 }, (_, at) => (at * 31 + (at >> 8)) & 255))

/** `reset`: the visitor did not get the whole echo, because it closed early or because its relay thread was killed. */
const visit = (port: number, { behavior, bytes }: Visit): Promise<"served" | "reset" | "corrupt"> =>
  new Promise((resolve) => {
    let receivedBytes = 0
    const socket = Net.connect({ port, host: "127.0.0.1", allowHalfOpen: true })
    socket
      .on("error", () => resolve("reset"))
      .on("close", () => resolve(receivedBytes === bytes ? "served" : "reset"))
      .on("data", (chunk: Buffer) => {
        if (!chunk.equals(pattern.subarray(receivedBytes, receivedBytes + chunk.length))) resolve("corrupt")
        receivedBytes += chunk.length
        if (behavior === "resets") socket.resetAndDestroy()
        if (behavior === "closes") socket.destroy()
        if (behavior === "pauses") {
          socket.pause()
          setTimeout(() => socket.resume(), 20)
        }
      })
      .end(pattern.subarray(0, bytes))
  })

const listen = (server: Net.Server) =>
  Effect.acquireRelease(
    Effect.async<number>((resume) => {
      server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => {
        const address = server.address()
        resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0))
      })
    }),
    () => Effect.sync(() => server.close())
  )

const descriptors = () => Fs.readdirSync("/proc/self/fd").length

/** The tunnel, its target and its visitors. Returns how many visitors are being served after the last one. */
const world = Effect.fnUntraced(function* ({ seed, tls, visitors }: Options) {
  const outcomes = { served: 0, reset: 0, corrupt: 0 }
  let kills = 0
  const found = yield* kernel
  const reactor = yield* Reactor.make(found)
  const host = Layer.mergeAll(
    NodeCertificates.layer,
    NodeCrypto.layer,
    Tunnel.layerDefaults,
    Settings.layer(),
    Layer.succeed(Transport, KernelTransport.make({ kernel: found })),
    Layer.succeed(RelayFactory, { layer: (options) => KernelRelay.layer({ ...options, kernel: found, reactor }) })
  )
  const target = yield* listen(
    Net.createServer({ allowHalfOpen: true }, (socket) => socket.on("error", () => undefined).pipe(socket))
  )
  const [tunnelPort, port] = yield* Effect.promise(async () => [await freePort(), await freePort()] as const)
  const tunnel = (url: string) =>
    Effect.flatMap(TunnelUrl.parse(url), (config) =>
      Effect.map(Layer.build(Tunnel.layer(config)), Context.get(Tunnel.Tunnel))
    )
  const query = tls ? "&tls=1" : ""
  const [server] = yield* Effect.provide(
    Effect.all([
      tunnel(`server://soak@127.0.0.1:${tunnelPort}/127.0.0.1:${port}?mode=1&slot=0${query}`),
      tunnel(`client://soak@127.0.0.1:${tunnelPort}/127.0.0.1:${target}?mode=2&slot=0`)
    ]),
    host
  )
  yield* server.ready

  const kill = Effect.zipRight(
    reactor.fail,
    Effect.sync(() => kills++)
  )
  yield* Effect.forkScoped(
    Effect.repeat(Effect.delay(kill, Duration.millis(700 + ((seed * 7919) % 600))), Schedule.forever)
  )
  const visits = drawVisits(seed)
  let next = 0
  const one = Effect.suspend(() => {
    const current = visits[next++ % visits.length] ?? { bytes: 1, behavior: "echoes" }
    return Effect.map(
      Effect.promise(() => visit(port, current)),
      (outcome) => {
        outcomes[outcome]++
        const done = outcomes.served + outcomes.reset + outcomes.corrupt
        if (done % 10_000 === 0)
          console.log(`${done} visitors: ${JSON.stringify(outcomes)}, relay threads killed ${kills} times`)
      }
    )
  })
  const all = Effect.whileLoop({ while: () => next < visitors, body: () => one, step: () => {} })
  yield* Effect.replicateEffect(all, 64, { concurrency: 64, discard: true })
  yield* Effect.sleep("1 seconds")
  return { kills, outcomes, served: (yield* server.checkpoint).tcps }
})

const soak = Effect.fnUntraced(function* (options: Options) {
  yield* kernel
  const before = descriptors()
  const startedAt = performance.now()
  const { kills, outcomes, served } = yield* Effect.scoped(world(options))
  yield* Effect.sleep("1 seconds")
  const after = descriptors()
  const seconds = (performance.now() - startedAt) / 1000
  const memory = process.memoryUsage().rss / 2 ** 20
  console.log(
    `${options.visitors} visitors in ${seconds.toFixed(0)} s: ${JSON.stringify(outcomes)}; all relay threads were killed ${kills} times`
  )
  console.log(
    `descriptors: ${before} before, ${after} after; memory ${memory.toFixed(0)} MiB; still being served: ${served}`
  )
  return outcomes.corrupt === 0 && served === 0 && after <= before
})
