import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Address from "../../src/core/Address.js"
import * as NodeHost from "../../src/node/process/NodeHost.js"
import * as Settings from "../../src/transport/Settings.js"
import * as Transport from "../../src/transport/Transport.js"
import * as Tunnel from "../../src/tunnel/Tunnel.js"
import type { TunnelConfig } from "../../src/url/TunnelUrl.js"
import * as configs from "../simulation/worlds/configs.js"

const open = (config: TunnelConfig) =>
  Effect.map(Layer.build(Tunnel.layer(config)), (services) => Context.get(services, Tunnel.Tunnel))
const anyPort = Address.make("127.0.0.1", 0)
const common = {
  key: Option.some(Redacted.make("0123456789abcdef0123456789abcdef")),
  log: "info",
  streams: false
} as const

const program = Effect.gen(function* () {
  const transport = yield* Transport.Transport
  const target = yield* transport.listen(anyPort)
  const answer = (connection: Transport.Connection) =>
    connection.read.pipe(Effect.zipRight(connection.write(new Uint8Array(1))), Effect.zipRight(connection.end))
  yield* Effect.forkScoped(Transport.serve(target, (connection) => Effect.ignore(answer(connection))))
  const server = yield* open(configs.server({ ...common, mode: "receive", tunnel: anyPort, targets: [anyPort] }))
  const addresses = yield* server.addresses
  const client = yield* open(
    configs.client({
      ...common,
      mode: "through",
      min: 1,
      tunnel: Option.getOrThrow(addresses.tunnel),
      targets: [target.address]
    })
  )
  yield* client.ready
  yield* server.ready

  const visit = Effect.scoped(
    Effect.gen(function* () {
      const visitor = yield* transport.connect(Option.getOrThrow(addresses.visitors))
      yield* visitor.write(new Uint8Array(1))
      return Option.isSome(yield* visitor.read)
    })
  )
  const idle = Effect.map(server.checkpoint, ({ pool }) => pool.idle)
  const begin = yield* Clock.currentTimeMillis
  const until = (at: number) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.sleep(Duration.millis(Math.max(0, begin + at - now))))
  /** Idle connections between two bursts, and when the next begins. */
  const found: Array<readonly [number, number]> = []
  const isForeseen = () => found.some(([between, before]) => between < size && before >= size)
  // Many more bursts than it takes: a busy machine delays some, and then they are not regular.
  while (found.length < 4 || (found.length < 20 && !isForeseen())) {
    const answers = yield* Effect.replicateEffect(visit, size, { concurrency: "unbounded" })
    assert.isTrue(answers.every((isServed) => isServed))
    yield* until((found.length + 0.3) * periodMillis)
    const between = yield* idle
    yield* until((found.length + 1) * periodMillis)
    found.push([between, yield* idle])
  }
  assert.isTrue(isForeseen(), found.join("; "))
  assert.isFalse(
    found.slice(0, 2).some(([, before]) => before >= size),
    found.join("; ")
  )
}).pipe(Effect.scoped)

const size = 12

const periodMillis = 1600

describe("the pool of a tunnel", () => {
  it.live("has the connections for a burst before it comes, once bursts are regular, over real sockets", () =>
    program.pipe(
      Effect.provide(
        Layer.mergeAll(
          NodeHost.layer,
          Settings.layer({ minPoolInterval: Duration.millis(50), maxPoolInterval: Duration.millis(200) })
        )
      ),
      Effect.provide(Logger.remove(Logger.defaultLogger))
    )
  )
})
