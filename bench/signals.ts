/**
 * Cost of launches on the control connection: two signal buses in this process over a loopback TCP connection;
 * the writes and bytes of both sides are counted, acknowledgements included. `npm run signals -- --seconds N`.
 *
 * `alone` sends each line in its own write and one launch per line; `together` is the normal way without compression,
 * `deflated` the normal way with it.
 */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { parseArgs } from "node:util"
import * as Address from "../src/core/Address.js"
import { Crypto } from "../src/transport/Crypto.js"
import * as Deadlines from "../src/core/Deadlines.js"
import { Deflate } from "../src/wire/Deflate.js"
import * as Dialect from "../src/wire/Dialect.js"
import * as Noise from "../src/wire/Noise.js"
import * as NodeCrypto from "../src/node/process/NodeCrypto.js"
import * as NodeDeflate from "../src/node/process/NodeDeflate.js"
import * as NodeTransport from "../src/node/socket/NodeTransport.js"
import * as Refusals from "../src/core/Refusals.js"
import * as Settings from "../src/transport/Settings.js"
import * as Signal from "../src/wire/Signal.js"
import * as SignalBus from "../src/signal/SignalBus.js"
import { Transport } from "../src/transport/Transport.js"
import * as EventBus from "../src/core/EventBus.js"
import * as SignalCounts from "../src/signal/SignalCounts.js"
import * as SignalFeed from "../src/signal/SignalFeed.js"

const { values } = parseArgs({ options: { seconds: { type: "string" } } })
const seconds = Number(values.seconds ?? 5)
if (!(seconds > 0)) {
  console.error("signals: expected --seconds <a number above 0>")
  process.exit(2)
}

const ways = ["alone", "together", "deflated"] as const
/** Launches per burst, and bursts per second. */
const loads = [
  { name: "one a second", burst: 1, every: 1000 },
  { name: "1,000 a second, one by one", burst: 1, every: 1 },
  { name: "1,000 a second, ten at a time", burst: 10, every: 10 },
  { name: "1,000 a second, a hundred at a time", burst: 100, every: 100 }
] as const

const launch = (n: number) =>
  Signal.makeLaunch({
    protocol: "tcp",
    id: Signal.ConnectionId.make((Math.imul(n, 0x9e3779b1) >>> 0).toString(16).padStart(8, "0")),
    visitor: Address.make(`203.0.${n % 113}.${(n * 7) % 251}`, 32_768 + ((n * 7919) % 28_000)),
    entry: Option.some(Address.make("198.51.100.2", 8080))
  })

/** The ciphers of both sides after a handshake. */
const agree = (crypto: Crypto["Type"]) =>
  Effect.gen(function* () {
    const options = { psk: Redacted.make(new Uint8Array(32)), prologue: new Uint8Array(0) }
    const payload = new Uint8Array(0)
    const initiated = Noise.initiate(crypto, { ...options, ephemeral: yield* Noise.ephemeral, payload })
    const read = yield* Noise.read(crypto, options, initiated.message)
    const server = yield* read.answer(yield* Noise.ephemeral, payload)
    const client = yield* initiated.read(server.message)
    return { client: client.ciphers, server: server.ciphers }
  })

const measure = (way: (typeof ways)[number], load: (typeof loads)[number]) =>
  Effect.gen(function* () {
    const transport = yield* Transport
    const crypto = yield* Crypto
    const { codec } = yield* Deflate
    const listener = yield* transport.listen(Address.make("127.0.0.1", 0))
    const here = yield* transport.connect(listener.address)
    const there = yield* listener.accept
    const { client, server } = yield* agree(crypto)
    const count = { writes: 0, bytes: 0 }
    const line = (connection: typeof here, ciphers: Noise.Ciphers): SignalBus.ControlConnection => {
      const dialect = Dialect.native(ciphers, { codec: way === "deflated" ? codec : Option.none() })
      const encode: Dialect.Dialect["encode"] = (batch) => {
        const parts =
          way === "alone"
            ? batch.signals.map((signal, at) =>
                dialect.encode({ signals: [signal], acknowledged: at === 0 ? batch.acknowledged : undefined })
              )
            : [dialect.encode(batch)]
        count.writes += parts.length
        count.bytes += parts.reduce((sum, { length }) => sum + length, 0)
        return Buffer.concat(parts)
      }
      return { connection, dialect: { ...dialect, encode } }
    }
    const began: Array<number> = []
    const delays: Array<number> = []
    const arrived = (signal: SignalBus.Delivered) =>
      Effect.sync(() => {
        if (signal._tag === "Launch") delays.push(performance.now() - (began[delays.length] ?? 0))
      })
    const attach = (own: SignalBus.ControlConnection) =>
      Effect.gen(function* () {
        const bus = yield* SignalBus.make
        yield* Effect.forkScoped(Effect.ignore(bus.run(arrived)))
        yield* Effect.forkScoped(bus.attach(own))
        return bus
      })
    const bus = yield* attach(line(here, client))
    yield* attach(line(there, server))
    yield* Effect.sleep(200)

    const total = Math.max(3, Math.round((seconds * 1000 * load.burst) / load.every))
    const start = performance.now()
    const before = { ...count }
    for (let n = 0; n < total;) {
      // Paced by the clock, because Node's timers are late by a millisecond or so.
      const due = start + (n / load.burst) * load.every - performance.now()
      yield* due > 0 ? Effect.sleep(due) : Effect.yieldNow()
      for (let at = 0; at < load.burst; at++, n++) {
        began.push(performance.now())
        yield* bus.launch(launch(n))
      }
    }
    yield* Effect.sleep(1000)
    const took = (performance.now() - start) / 1000
    delays.sort((left, right) => left - right)
    const at = (part: number) => (delays[Math.floor(delays.length * part)] ?? 0).toFixed(2).padStart(7)
    const rate = (value: number) =>
      Math.round(value / took)
        .toString()
        .padStart(7)
    const [writes, bytes] = [count.writes - before.writes, count.bytes - before.bytes]
    yield* Console.log(
      `${load.name.padEnd(36)} ${way.padEnd(9)} ${rate(writes)} ${rate(bytes)} ${(bytes / total).toFixed(0).padStart(7)} ${at(0.5)} ${at(0.99)}`
    )
  }).pipe(
    Effect.scoped,
    Effect.provide([
      Deadlines.layer,
      NodeCrypto.layer,
      NodeDeflate.layer,
      NodeTransport.layer,
      Refusals.layer,
      Settings.layer()
    ]),
    Effect.provide([EventBus.layerNoop, SignalCounts.layer, SignalFeed.layerNone])
  )

await Effect.runPromise(
  Effect.zipRight(
    Console.log(`${" ".repeat(46)} writes/s bytes/s  each B  p50 ms  p99 ms, both sides together`),
    Effect.forEach(loads, (load) => Effect.forEach(ways, (way) => measure(way, load)))
  )
)
