/**
 * A host program with both sides of a tunnel inside: run it with `npx tsx examples/embed.ts`.
 *
 * It serves a small TCP target, opens a server and a client tunnel, connects to the target through them, and prints the
 * status and a checkpoint. The end of its scope closes every socket.
 */
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { Address, Settings, Transport, Tunnel, TunnelUrl } from "nodepass-effect"
import { NodeHost } from "nodepass-effect/node"
import process from "node:process"
import { fileURLToPath } from "node:url"

const open = (config: TunnelUrl.TunnelConfig) =>
  Effect.map(Layer.build(Tunnel.layer(config)), (services) => Context.get(services, Tunnel.Tunnel))

/** Answers every connection with a greeting, on a free port. */
const target = Effect.gen(function* () {
  const transport = yield* Transport.Transport
  const listener = yield* transport.listen(Address.make("127.0.0.1", 0))
  yield* Effect.forkScoped(
    Transport.serve(listener, (connection) =>
      Effect.ignore(Effect.zipRight(connection.write(new TextEncoder().encode("hello")), connection.end))
    )
  )
  return listener.address
})

export const program = Effect.gen(function* () {
  const transport = yield* Transport.Transport
  const anyPort = Address.make("127.0.0.1", 0)

  const server = yield* open({
    ...(yield* TunnelUrl.parse("server://example-key@127.0.0.1:10101/127.0.0.1:8080?mode=1&log=warn")),
    tunnel: anyPort,
    targets: [anyPort]
  })
  const { tunnel, visitors } = yield* server.addresses
  const client = yield* open({
    ...(yield* TunnelUrl.parse("client://example-key@127.0.0.1:10101/127.0.0.1:3000?mode=2&min=4&log=warn")),
    tunnel: Option.getOrThrow(tunnel),
    targets: [yield* target]
  })
  yield* Effect.all([server.ready, client.ready], { concurrency: 2 })

  const launch = yield* Effect.fork(
    Stream.runHead(Stream.filter(server.events(), (event) => event._tag === "Launched"))
  )
  const visit = yield* transport.connect(Option.getOrThrow(visitors))
  const chunk = yield* visit.read
  const greeting = new TextDecoder().decode(Option.getOrThrow(chunk))
  yield* Console.log(`answer of the target: ${greeting}`)
  yield* Console.log(`status: ${yield* server.status}`)

  const { visitor } = Option.getOrThrow(yield* Fiber.join(launch))
  yield* Console.log(`launched for: ${String(visitor)}`)
  const checkpoint = yield* Stream.runHead(server.checkpoints)
  yield* Console.log(Option.getOrThrow(checkpoint).line)
  return greeting
}).pipe(Effect.scoped)

export const live = Layer.merge(NodeHost.layer, Settings.layer())

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await Effect.runPromise(Effect.provide(program, live))
}
