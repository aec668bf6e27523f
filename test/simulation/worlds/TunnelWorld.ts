/**
 * A whole tunnel in a simulated world: both sides, a target, visitors, and faults, all drawn by a seed.
 *
 * `run` says which laws were broken, which is none in every world.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Address from "../../../src/core/Address.js"
import * as Frame from "../../../src/wire/Frame.js"
import * as NodeDeflate from "../../../src/node/process/NodeDeflate.js"
import type { OpenError } from "../../../src/tunnel/Runner.js"
import * as Settings from "../../../src/transport/Settings.js"
import * as SimCertificates from "../../../src/testing/SimCertificates.js"
import * as SimCrypto from "../../../src/testing/SimCrypto.js"
import * as SimNetwork from "../../../src/testing/SimNetwork.js"
import * as Simulation from "../../../src/testing/Simulation.js"
import * as Transport from "../../../src/transport/Transport.js"
import * as Tunnel from "../../../src/tunnel/Tunnel.js"
import type { TunnelConfig } from "../../../src/url/TunnelUrl.js"
import * as configs from "./configs.js"
import * as DatagramVisit from "./DatagramVisit.js"

export interface World {
  readonly seed: number
  /** Laws broken, in words. */
  readonly broken: ReadonlyArray<string>
  /** The whole history in one number: equal seeds, equal fingerprints. */
  readonly fingerprint: string
  readonly served: number
  readonly refused: number
  readonly log: ReadonlyArray<string>
}

type Fault =
  | { readonly _tag: "Crash"; readonly host: "server" | "client"; readonly downMillis: number }
  | { readonly _tag: "Partition"; readonly millis: number }
  /** Resets the oldest connections, the control connection first. */
  | { readonly _tag: "Cut"; readonly limit: number }
  /** Resets some half of the connections, whichever they are. */
  | { readonly _tag: "Thin"; readonly parity: number }
  /** Another tunnel key, on one side first. */
  | { readonly _tag: "Rekey"; readonly first: "server" | "client"; readonly apartMillis: number }

interface Visit {
  readonly id: number
  readonly arrivesMillis: number
  readonly body: Uint8Array
  /** How the visitor behaves: asks and half-closes, half-closes at once and reads, or resets in the middle. */
  readonly manner: "ask" | "listen" | "reset"
}

interface Scenario {
  readonly receiver: "server" | "client"
  readonly link: SimNetwork.Link
  readonly min: number
  readonly max: number
  readonly tls: "plain" | "self-signed"
  readonly slot: number
  readonly visits: ReadonlyArray<Visit>
  readonly datagramVisits: ReadonlyArray<DatagramVisit.DatagramVisit>
  readonly faults: ReadonlyArray<readonly [atMillis: number, fault: Fault]>
}

/** Timeouts short enough that a world passes many of them. */
const settings: Partial<Settings.Settings["Type"]> = {
  handshakeTimeout: Duration.seconds(5),
  tcpDialTimeout: Duration.seconds(5),
  poolGetTimeout: Duration.seconds(10),
  keyLifetime: Duration.seconds(2),
  keyGrace: Duration.seconds(20),
  shutdownTimeout: Duration.seconds(2)
}

/** From the last fault on, a tunnel has this long to serve again: detection, backoff, handshake, warming. */
const recovery = Duration.seconds(40)
/** A visitor hears something, or its end, within this: pool wait, dial, and the faults in between. */
const patience = Duration.minutes(2)

const between = (low: number, high: number) => Random.nextIntBetween(low, high + 1)
const oneOf = <const A>(...values: readonly [A, ...ReadonlyArray<A>]) =>
  Effect.map(Random.nextIntBetween(0, values.length), (index) => values[index] ?? values[0])

const drawVisit = (id: number): Effect.Effect<Visit> =>
  Effect.gen(function* () {
    const length = yield* oneOf(0, 1, 20, yield* between(0, 3000))
    const body = new Uint8Array(length)
    for (let at = 0; at < length; at++) body[at] = (id * 31 + at * 7) & 0xff
    return {
      id,
      arrivesMillis: yield* oneOf(0, yield* between(0, 3000), yield* between(0, 30_000)),
      body,
      manner: yield* oneOf("ask", "ask", "ask", "listen", "reset")
    }
  })

const drawRekey: Effect.Effect<Fault> = Effect.gen(function* () {
  return { _tag: "Rekey", first: yield* oneOf("server", "client"), apartMillis: yield* oneOf(0, 30, 8000) }
})

const drawFault: Effect.Effect<readonly [number, Fault]> = Effect.gen(function* () {
  const at = yield* between(0, 20_000)
  const fault: Fault = yield* oneOf<Effect.Effect<Fault>>(
    Effect.map(between(0, 4000), (downMillis) => ({ _tag: "Crash", host: "server", downMillis })),
    Effect.map(between(0, 4000), (downMillis) => ({ _tag: "Crash", host: "client", downMillis })),
    Effect.map(between(1, 25_000), (millis) => ({ _tag: "Partition", millis })),
    Effect.map(between(1, 30), (limit) => ({ _tag: "Cut", limit })),
    Effect.map(between(0, 1), (parity) => ({ _tag: "Thin", parity })),
    drawRekey
  ).pipe(Effect.flatten)
  return [at, fault] as const
})

const draw: Effect.Effect<Scenario> = Effect.gen(function* () {
  const visits = yield* oneOf(1, 3, yield* between(0, 25))
  const faults = yield* oneOf(0, 0, 1, 2, 4)
  const max = yield* oneOf(1, 3, 12)
  return {
    receiver: yield* oneOf("server", "client"),
    link: {
      latency: Duration.millis(yield* oneOf(0, 1, 20, 150)),
      jitter: Duration.millis(yield* oneOf(0, 0, 30)),
      window: yield* between(1, 16),
      segment: yield* oneOf(40, 700, 65_536),
      reset: yield* oneOf(0, 0, 0, 0.002)
    },
    min: yield* oneOf(1, 2, 8),
    max,
    tls: yield* oneOf("plain", "self-signed"),
    slot: yield* oneOf(1, 4, 1000, 1000, 1000),
    visits: yield* Effect.forEach(
      Array.from({ length: visits }, (_, id) => id),
      drawVisit
    ),
    datagramVisits: yield* Effect.forEach(
      Array.from({ length: yield* oneOf(0, 1, yield* between(0, 6)) }, (_, id) => id),
      DatagramVisit.draw
    ),
    faults: [
      ...(yield* Effect.replicateEffect(drawFault, faults)),
      ...(yield* Effect.replicateEffect(Effect.all([between(0, 20_000), drawRekey]), yield* oneOf(0, 0, 0, 1)))
    ]
  }
})

const tunnelPort = Address.make("server", 10_101)
const targetAt = (receiver: Scenario["receiver"]) => Address.make("target", receiver === "server" ? 80 : 81)
const visitorsAt = (receiver: Scenario["receiver"]) => Address.make(receiver, 8080)

const answerTo = (question: Uint8Array): Uint8Array =>
  Frame.concat([new TextEncoder().encode("re:"), question.toReversed()])

/** Everything until the end. */
export const readAll = (connection: Transport.Connection) =>
  Effect.gen(function* () {
    const parts: Array<Uint8Array> = []
    while (true) {
      const chunk = yield* connection.read
      if (Option.isNone(chunk)) return Frame.concat(parts)
      parts.push(chunk.value)
    }
  })

type Outcome = "served" | "refused" | "corrupt" | "hung" | "left"

const visit = (scenario: Scenario, { arrivesMillis, body, id, manner }: Visit) =>
  Effect.gen(function* () {
    yield* Effect.sleep(arrivesMillis)
    const transport = yield* Transport.Transport
    const connection = yield* transport.connect(visitorsAt(scenario.receiver))
    const question = manner === "listen" ? new Uint8Array(0) : Frame.concat([new Uint8Array([id]), body])
    if (question.length > 0) yield* connection.write(question)
    if (manner === "reset") {
      yield* connection.reset
      return "left" as const
    }
    yield* connection.end
    const answer = yield* readAll(connection)
    return equal(answer, answerTo(question)) ? ("served" as const) : ("corrupt" as const)
  }).pipe(
    Effect.scoped,
    Effect.timeoutTo({
      duration: patience,
      onSuccess: (outcome): Outcome => outcome,
      onTimeout: (): Outcome => "hung"
    }),
    Effect.catchAll(() => Effect.succeed<Outcome>("refused"))
  )

const equal = (left: Uint8Array, right: Uint8Array) =>
  left.length === right.length && left.every((byte, at) => byte === right[at])

/** Answers each question once it has ended, and counts how often each visitor arrived. */
const runTarget = (scenario: Scenario, arrivals: Map<number, number>) =>
  Effect.gen(function* () {
    const transport = yield* Transport.Transport
    const listener = yield* transport.listen(targetAt(scenario.receiver))
    return yield* Transport.serve(listener, (connection) =>
      Effect.gen(function* () {
        const question = yield* readAll(connection)
        const id = question[0]
        if (id !== undefined) arrivals.set(id, (arrivals.get(id) ?? 0) + 1)
        yield* connection.write(answerTo(question))
        yield* connection.end
      }).pipe(Effect.ignore)
    )
  }).pipe(Effect.scoped)

/** One program on a host that can be killed and started again. */
const makeHost = (network: SimNetwork.SimNetwork, name: "server" | "client", config: TunnelConfig, seed: number) =>
  Effect.gen(function* () {
    let starts = 0
    let key = config.key
    let running = false
    let scope = yield* Scope.make()
    const tunnels: Array<Tunnel.Tunnel["Type"]> = []
    const start = Effect.gen(function* () {
      scope = yield* Scope.make()
      const services = yield* Layer.buildWithScope(
        Tunnel.layer({ ...config, key }).pipe(
          Layer.provide([
            network.host(name),
            SimCrypto.layer(seed * 1000 + starts++),
            SimCertificates.disk(seed * 1000 + starts).layer,
            Settings.layer(settings),
            Tunnel.layerDefaults,
            NodeDeflate.layer
          ])
        ),
        scope
      )
      tunnels.push(Context.get(services, Tunnel.Tunnel))
      running = true
    })
    const rekey = (text: string) =>
      Effect.suspend(() => {
        key = Option.some(Redacted.make(text))
        return running ? Effect.orDie(tunnels.at(-1)?.replaceKey(key) ?? Effect.void) : Effect.void
      })
    const kill = Effect.zipRight(
      network.crash(name),
      Effect.suspend(() => {
        running = false
        return Scope.close(scope, Exit.void)
      })
    )
    yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
    return { start, kill, rekey, tunnel: () => tunnels.at(-1) }
  })

const program = (seed: number, network: (link: SimNetwork.Link) => SimNetwork.SimNetwork) =>
  Effect.gen(function* () {
    const scenario = yield* draw
    const sim = network(scenario.link)
    const broken: Array<string> = []
    let keys = 0
    const arrivals = new Map<number, number>()
    const datagramArrivals = new Map<string, number>()
    const key = Option.some(Redacted.make(`key ${seed}`))
    const common = { key, log: "info", read: Duration.seconds(20), slot: scenario.slot, tunnel: tunnelPort } as const
    const dialsTarget = targetAt(scenario.receiver)
    const server = configs.server({
      ...common,
      mode: scenario.receiver === "server" ? "receive" : "send",
      tls: { mode: scenario.tls },
      max: scenario.max,
      targets: [scenario.receiver === "server" ? visitorsAt("server") : dialsTarget]
    })
    const client = configs.client({
      ...common,
      mode: "through",
      tls: scenario.tls,
      min: scenario.min,
      targets: [scenario.receiver === "client" ? visitorsAt("client") : dialsTarget]
    })

    yield* Effect.forkScoped(Effect.provide(runTarget(scenario, arrivals), sim.host("target")))
    yield* Effect.forkScoped(
      Effect.provide(DatagramVisit.serve(targetAt(scenario.receiver), datagramArrivals), sim.host("target"))
    )
    const hosts = {
      server: yield* makeHost(sim, "server", server, seed * 2),
      client: yield* makeHost(sim, "client", client, seed * 2 + 1)
    }
    yield* hosts.server.start
    yield* hosts.client.start
    const unharmed = scenario.faults.every(([, { _tag }]) => _tag === "Rekey")
    if (unharmed) yield* hosts.client.tunnel()?.ready ?? Effect.void

    const apply = (fault: Fault): Effect.Effect<void, OpenError> => {
      switch (fault._tag) {
        case "Crash":
          return Effect.zipRight(
            hosts[fault.host].kill,
            Effect.delay(hosts[fault.host].start, Duration.millis(fault.downMillis))
          )
        case "Partition":
          return Effect.zipRight(
            sim.partition("server", "client"),
            Effect.delay(sim.heal("server", "client"), Duration.millis(fault.millis))
          )
        case "Cut":
          return Effect.asVoid(sim.cut("server", "client", { limit: fault.limit }))
        case "Rekey": {
          const text = `key ${seed} ${keys++}`
          const second = fault.first === "server" ? "client" : "server"
          return Effect.zipRight(
            hosts[fault.first].rekey(text),
            Effect.delay(hosts[second].rekey(text), Duration.millis(fault.apartMillis))
          )
        }
        case "Thin":
          return Effect.asVoid(
            sim.cut("server", "client", { where: ({ client }) => (client.port >> 1) % 2 === fault.parity })
          )
      }
    }
    const faults = Effect.forEach(
      scenario.faults.toSorted(([left], [right]) => left - right),
      ([at, fault]) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) =>
          Effect.delay(apply(fault), Duration.millis(Math.max(0, at - now)))
        ),
      { discard: true }
    )
    const bounds = Effect.gen(function* () {
      while (true) {
        yield* Effect.sleep(Duration.millis(397))
        for (const [name, host] of Object.entries(hosts)) {
          const checkpoint = yield* host.tunnel()?.checkpoint ?? Effect.succeed(undefined)
          if (checkpoint === undefined) continue
          const served = checkpoint.tcps + checkpoint.udps
          if (served > scenario.slot) broken.push(`${name} served ${served} with ${scenario.slot} slots`)
          if (checkpoint.pool.idle > scenario.max) {
            broken.push(`${name} held ${checkpoint.pool.idle} pool connections of ${scenario.max}`)
          }
        }
      }
    })

    const watcher = yield* Effect.fork(bounds)
    const [outcomes, datagramOutcomes] = yield* Effect.all(
      [
        Effect.forEach(scenario.visits, (each) => visit(scenario, each), { concurrency: "unbounded" }),
        Effect.forEach(scenario.datagramVisits, (each) => DatagramVisit.visit(visitorsAt(scenario.receiver), each), {
          concurrency: "unbounded"
        }),
        faults
      ],
      { concurrency: 3 }
    ).pipe(Effect.provide(sim.host("visitor")))

    // Whatever happened, a tunnel that is left alone serves again.
    const last: Visit = { id: 255, arrivesMillis: 0, body: new Uint8Array([1, 2, 3]), manner: "ask" }
    const settled = yield* visit({ ...scenario, slot: 1000 }, last).pipe(
      Effect.repeat(Schedule.spaced("50 millis").pipe(Schedule.untilInput((outcome) => outcome === "served"))),
      Effect.provide(sim.host("visitor")),
      Effect.timeoutOption(recovery)
    )
    if (scenario.link.reset === 0) {
      if (Option.isNone(settled)) broken.push("does not serve again after the last fault")
      yield* Effect.sleep(Duration.seconds(2))
      const after = yield* Effect.replicateEffect(visit({ ...scenario, slot: 1000 }, last), scenario.max + 1).pipe(
        Effect.provide(sim.host("visitor"))
      )
      if (after.some((outcome) => outcome !== "served"))
        broken.push(`when all was well again a visitor was ${after.join()}`)
    }
    watcher.unsafeInterruptAsFork(watcher.id())

    // On a long way with little room, or with a pool of one, no time limit holds for so many.
    const wide =
      Duration.toMillis(scenario.link.latency ?? 0) < 150 || (scenario.link.segment !== 40 && scenario.max > 1)
    const calm = wide && unharmed && scenario.link.reset === 0 && scenario.slot >= 1000
    outcomes.forEach((outcome, index) => {
      const { manner } = scenario.visits[index] ?? last
      if (outcome === "corrupt") broken.push(`visitor ${index} got a wrong answer`)
      if (outcome === "hung") broken.push(`visitor ${index} was left hanging`)
      if (calm && outcome !== (manner === "reset" ? "left" : "served")) {
        broken.push(`visitor ${index} was ${outcome} in a calm world`)
      }
    })
    for (const [id, times] of arrivals) {
      if (id !== last.id && times > 1) broken.push(`visitor ${id} reached the target ${times} times`)
    }
    datagramOutcomes.forEach((outcome, index) => {
      broken.push(...outcome.broken)
      if (calm && outcome.answered < outcome.sent) {
        broken.push(`${outcome.sent - outcome.answered} datagrams of visitor ${index} got no answer in a calm world`)
      }
    })
    for (const [name, times] of datagramArrivals) {
      if (times > 1) broken.push(`datagram ${name} reached the target ${times} times`)
    }
    const count = (wanted: Outcome) => outcomes.filter((outcome) => outcome === wanted).length
    return { broken, served: count("served"), refused: count("refused") }
  })

export const run = (seed: number): World => {
  const log: Array<string> = []
  let sim: SimNetwork.SimNetwork | undefined
  const logger = Logger.make(({ date, logLevel, message }) => {
    log.push(`${date.getTime()} ${logLevel.label} ${String(message)}`)
  })
  const { elapsed, exit, leftover, steps } = Simulation.run(
    program(seed, (link) => (sim = SimNetwork.make(link))).pipe(
      Effect.scoped,
      Effect.provide(Logger.replace(Logger.defaultLogger, logger))
    ),
    { seed, maxSteps: 500_000 }
  )
  const broken = Exit.isSuccess(exit) ? [...exit.value.broken] : [String(exit.cause)]
  const open = sim?.open() ?? 0
  if (open > 0) broken.push(`${open} connections are open after the end`)
  if (leftover > 0) broken.push(`${leftover} timers are left after the end`)
  const counts = Exit.isSuccess(exit) ? exit.value : { served: 0, refused: 0 }
  return {
    seed,
    broken,
    served: counts.served,
    refused: counts.refused,
    log,
    fingerprint: `${steps} ${elapsed} ${counts.served}`
  }
}
