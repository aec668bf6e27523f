/**
 * A host with a pool policy of its own: run it with `npx tsx examples/pool-policy.ts`.
 *
 * The default policy adapts to the demand. This one keeps eight connections idle at all times, and the pool of
 * every tunnel under the layer obeys it. `PoolFactory` and `SignalBusFactory` are replaced in the same way.
 */
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { Address, PoolPolicy, Settings, Tunnel, TunnelUrl } from "nodepass-effect"
import { NodeHost } from "nodepass-effect/node"
import process from "node:process"
import { fileURLToPath } from "node:url"

/** Keeps the same number of connections idle, and looks once a second whether some are missing. */
const fixed = (capacity: number) =>
  Layer.succeed(PoolPolicy.PoolPolicy, {
    initialCapacity: () => capacity,
    schedule: () => Schedule.as(Schedule.spaced("1 second"), { capacity })
  })

const open = (config: TunnelUrl.TunnelConfig) =>
  Effect.map(Layer.build(Tunnel.layer(config)), (services) => Context.get(services, Tunnel.Tunnel))

export const program = Effect.gen(function* () {
  const anyPort = Address.make("127.0.0.1", 0)
  const server = yield* open({
    ...(yield* TunnelUrl.parse("server://example-key@127.0.0.1:10101/127.0.0.1:8080?mode=1&log=warn")),
    tunnel: anyPort,
    targets: [anyPort]
  })
  const { tunnel } = yield* server.addresses
  const client = yield* open({
    ...(yield* TunnelUrl.parse("client://example-key@127.0.0.1:10101/127.0.0.1:3000?mode=2&log=warn")),
    tunnel: Option.getOrThrow(tunnel)
  })

  yield* client.ready

  const full = Stream.filter(client.checkpoints, ({ pool }) => pool.idle === pool.capacity)
  const { pool } = Option.getOrThrow(yield* Stream.runHead(full))
  yield* Console.log(`connections that wait for visitors: ${pool.idle}`)
  return pool.idle
}).pipe(Effect.scoped)

/** The last layer replaces the default policy that `NodeHost.layer` provides. */
export const live = Layer.mergeAll(NodeHost.layer, Settings.layer({ reportInterval: Duration.millis(100) }), fixed(8))

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await Effect.runPromise(Effect.provide(program, live))
}
