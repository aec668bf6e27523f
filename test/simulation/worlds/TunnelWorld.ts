/**
 * A whole tunnel in a simulated world: both sides, a target, visitors, and faults.
 *
 * A scenario is a value that FastCheck draws and shrinks; `run` returns the laws that were broken in it, in words.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
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
import { equal, readAll, utf8 } from "../../Bytes.js"
import * as configs from "./configs.js"
import * as DatagramVisit from "./DatagramVisit.js"

export interface Outcome {
  /** Laws broken, in words. */
  readonly broken: ReadonlyArray<string>
  /** Equal scenarios have equal fingerprints. */
  readonly fingerprint: string
  readonly served: number
  readonly refused: number
  readonly log: ReadonlyArray<string>
}

type Side = "server" | "client"

type Fault = { readonly atMillis: number } & (
  | { readonly _tag: "Crash"; readonly host: Side; readonly downMillis: number }
  | { readonly _tag: "Partition"; readonly millis: number }
  /** Resets the oldest connections, the control connection first. */
  | { readonly _tag: "Cut"; readonly limit: number }
  /** Resets about half of the connections: those whose port is even, or those whose port is odd. */
  | { readonly _tag: "Thin"; readonly parity: number }
  /** Loses all that these connections carry, without an end: all of them, or as with Thin. */
  | { readonly _tag: "Swallow"; readonly parity: number | undefined }
  /** Replaces the tunnel key, on one side first. */
  | { readonly _tag: "Rekey"; readonly first: Side; readonly apartMillis: number }
)

interface Visit {
  readonly arrivesMillis: number
  /** Bytes of the question, behind the visitor's id. */
  readonly length: number
  /** Asks and half-closes, half-closes at once and reads, or asks and resets. */
  readonly manner: "ask" | "listen" | "reset"
}

export interface Scenario {
  readonly seed: number
  readonly receiver: Side
  readonly link: SimNetwork.Link
  readonly min: number
  readonly max: number
  readonly tls: "plain" | "self-signed"
  readonly slot: number
  readonly visits: ReadonlyArray<Visit>
  readonly datagramVisits: ReadonlyArray<DatagramVisit.DatagramVisit>
  readonly faults: ReadonlyArray<Fault>
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

/** From the last fault on, a tunnel serves again within this: detection, backoff, handshake, warming. */
const recovery = Duration.seconds(40)
/** A visitor is served or reset within this: pool wait, dial, and the faults in between. */
const patience = Duration.minutes(2)

const { constant, constantFrom, integer, nat, oneof, record } = FastCheck

/** Mostly short arrays, sometimes up to `maxLength`. */
const few = <A>(one: FastCheck.Arbitrary<A>, short: number, maxLength: number) =>
  oneof(
    { weight: 2, arbitrary: FastCheck.array(one, { maxLength: short }) },
    { weight: 1, arbitrary: FastCheck.array(one, { maxLength, size: "max" }) }
  )

const side = constantFrom<Side>("server", "client")
const atMillis = nat(20_000)

const rekey: FastCheck.Arbitrary<Fault> = record({
  _tag: constant("Rekey" as const),
  atMillis,
  first: side,
  apartMillis: constantFrom(0, 30, 8000)
})

const fault: FastCheck.Arbitrary<Fault> = oneof(
  { weight: 2, arbitrary: record({ _tag: constant("Crash" as const), atMillis, host: side, downMillis: nat(4000) }) },
  {
    weight: 1,
    arbitrary: record({ _tag: constant("Partition" as const), atMillis, millis: integer({ min: 1, max: 25_000 }) })
  },
  { weight: 1, arbitrary: record({ _tag: constant("Cut" as const), atMillis, limit: integer({ min: 1, max: 30 }) }) },
  { weight: 1, arbitrary: record({ _tag: constant("Thin" as const), atMillis, parity: nat(1) }) },
  {
    weight: 1,
    arbitrary: record({ _tag: constant("Swallow" as const), atMillis, parity: constantFrom(0, 1, undefined) })
  },
  { weight: 1, arbitrary: rekey }
)

const visit: FastCheck.Arbitrary<Visit> = record({
  arrivesMillis: oneof(constant(0), nat(3000), nat(30_000)),
  length: oneof(constantFrom(0, 1, 20), nat(3000)),
  manner: constantFrom("ask", "ask", "ask", "listen", "reset")
})

export const scenario: FastCheck.Arbitrary<Scenario> = record({
  seed: FastCheck.noShrink(nat(1_000_000)),
  receiver: side,
  link: record({
    latency: constantFrom(0, 1, 20, 150),
    jitter: constantFrom(0, 0, 30),
    window: integer({ min: 1, max: 16 }),
    segment: constantFrom(65_536, 700, 40),
    reset: constantFrom(0, 0, 0, 0.002)
  }),
  min: constantFrom(1, 2, 8),
  max: constantFrom(1, 3, 12),
  tls: constantFrom("plain", "self-signed"),
  slot: constantFrom(1000, 1000, 1000, 4, 1),
  visits: few(visit, 3, 25),
  datagramVisits: few(DatagramVisit.arbitrary({ latestMillis: 20_000, maxDatagrams: 12 }), 1, 6),
  // Worlds without a fault, or with new keys alone, have laws of their own.
  faults: oneof(
    { weight: 2, arbitrary: FastCheck.array(rekey, { maxLength: 1 }) },
    { weight: 2, arbitrary: FastCheck.array(fault, { minLength: 1, maxLength: 2 }) },
    { weight: 1, arbitrary: FastCheck.array(fault, { minLength: 1, maxLength: 5 }) }
  )
})

const tunnelPort = Address.make("server", 10_101)
const targetAt = (receiver: Side) => Address.make("target", receiver === "server" ? 80 : 81)
const visitorsAt = (receiver: Side) => Address.make(receiver, 8080)

const question = (id: number, length: number): Uint8Array =>
  Uint8Array.from({ length: length + 1 }, (_, at) => (at === 0 ? id : id * 31 + (at - 1) * 7) & 0xff)
const answerTo = (question: Uint8Array): Uint8Array => Frame.concat([utf8("re:"), question.toReversed()])

type Fate = "served" | "refused" | "corrupt" | "hung" | "left"

const visitAs = (id: number, receiver: Side, { arrivesMillis, length, manner }: Visit) =>
  Effect.gen(function* () {
    yield* Effect.sleep(arrivesMillis)
    const transport = yield* Transport.Transport
    const connection = yield* transport.connect(visitorsAt(receiver))
    const asked = manner === "listen" ? new Uint8Array(0) : question(id, length)
    if (asked.length > 0) yield* connection.write(asked)
    if (manner === "reset") {
      yield* connection.reset
      return "left" as const
    }
    yield* connection.end
    const answer = yield* readAll(connection)
    return equal(answer, answerTo(asked)) ? ("served" as const) : ("corrupt" as const)
  }).pipe(
    Effect.scoped,
    Effect.timeoutTo({ duration: patience, onSuccess: (fate): Fate => fate, onTimeout: (): Fate => "hung" }),
    Effect.catchAll(() => Effect.succeed<Fate>("refused"))
  )

/** Answers each question once it has ended, and counts how often each visitor arrived. */
const runTarget = (receiver: Side, arrivals: Map<number, number>) =>
  Effect.gen(function* () {
    const transport = yield* Transport.Transport
    const listener = yield* transport.listen(targetAt(receiver))
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

/** About half of the connections, or all of them. */
const hasParity =
  (parity: number | undefined) =>
  ({ client }: { readonly client: Address.Address }) =>
    parity === undefined || (client.port >> 1) % 2 === parity

const program = (scenario: Scenario, sim: SimNetwork.SimNetwork) =>
  Effect.gen(function* () {
    const { receiver, seed } = scenario
    const broken: Array<string> = []
    let keys = 0
    const arrivals = new Map<number, number>()
    const datagramArrivals = new Map<string, number>()
    const key = Option.some(Redacted.make(`key ${seed}`))
    const common = {
      key,
      log: "info",
      read: Option.some(Duration.seconds(20)),
      slot: scenario.slot,
      tunnel: tunnelPort
    } as const
    const target = targetAt(receiver)
    const server = configs.server({
      ...common,
      mode: receiver === "server" ? "receive" : "send",
      tls: { mode: scenario.tls },
      max: scenario.max,
      targets: [receiver === "server" ? visitorsAt("server") : target]
    })
    const client = configs.client({
      ...common,
      mode: "through",
      tls: scenario.tls,
      min: scenario.min,
      targets: [receiver === "client" ? visitorsAt("client") : target]
    })

    yield* Effect.forkScoped(Effect.provide(runTarget(receiver, arrivals), sim.host("target")))
    yield* Effect.forkScoped(Effect.provide(DatagramVisit.serve(target, datagramArrivals), sim.host("target")))
    const hosts = {
      server: yield* makeHost(sim, "server", server, seed * 2),
      client: yield* makeHost(sim, "client", client, seed * 2 + 1)
    }
    yield* hosts.server.start
    yield* hosts.client.start
    const unharmed = scenario.faults.every(({ _tag }) => _tag === "Rekey")
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
          return Effect.asVoid(sim.cut("server", "client", { where: hasParity(fault.parity) }))
        case "Swallow":
          return Effect.asVoid(sim.swallow("server", "client", { where: hasParity(fault.parity) }))
      }
    }
    const faults = Effect.forEach(
      scenario.faults.toSorted((left, right) => left.atMillis - right.atMillis),
      (fault) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) =>
          Effect.delay(apply(fault), Duration.millis(Math.max(0, fault.atMillis - now)))
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
    const [fates, datagramVisits] = yield* Effect.all(
      [
        Effect.forEach(scenario.visits, (visit, id) => visitAs(id, receiver, visit), { concurrency: "unbounded" }),
        Effect.forEach(scenario.datagramVisits, (visit, id) => DatagramVisit.visit(visitorsAt(receiver), id, visit), {
          concurrency: "unbounded"
        }),
        faults
      ],
      { concurrency: 3 }
    ).pipe(Effect.provide(sim.host("visitor")))

    // Whatever happened, a tunnel that is left alone serves again.
    const visitAgain = visitAs(lastId, receiver, { arrivesMillis: 0, length: 3, manner: "ask" })
    const served = yield* visitAgain.pipe(
      Effect.repeat(Schedule.spaced("50 millis").pipe(Schedule.untilInput((fate) => fate === "served"))),
      Effect.provide(sim.host("visitor")),
      Effect.timeoutOption(Duration.sum(recovery, backlog(scenario)))
    )
    if (scenario.link.reset === 0) {
      if (Option.isNone(served)) broken.push("does not serve again after the last fault")
      yield* Effect.sleep(Duration.seconds(2))
      const after = yield* Effect.replicateEffect(visitAgain, scenario.max + 1).pipe(
        Effect.provide(sim.host("visitor"))
      )
      if (after.some((fate) => fate !== "served")) broken.push(`after the last fault a visitor was ${after.join()}`)
    }
    watcher.unsafeInterruptAsFork(watcher.id())

    // On a long way with little room, or with a pool of one, no time limit holds for so many.
    const wide =
      Duration.toMillis(scenario.link.latency ?? 0) < 150 || (scenario.link.segment !== 40 && scenario.max > 1)
    const calm = wide && unharmed && scenario.link.reset === 0 && scenario.slot >= 1000
    fates.forEach((fate, id) => {
      if (fate === "corrupt") broken.push(`visitor ${id} got a wrong answer`)
      if (fate === "hung") broken.push(`visitor ${id} was left hanging`)
      const expected = scenario.visits[id]?.manner === "reset" ? "left" : "served"
      if (calm && fate !== expected) broken.push(`visitor ${id} was ${fate} in a calm world`)
    })
    for (const [id, times] of arrivals) {
      if (id !== lastId && times > 1) broken.push(`visitor ${id} reached the target ${times} times`)
    }
    datagramVisits.forEach((visit, id) => {
      broken.push(...visit.broken)
      if (calm && visit.answered < visit.sent) {
        broken.push(`${visit.sent - visit.answered} datagrams of visitor ${id} got no answer in a calm world`)
      }
    })
    for (const [name, times] of datagramArrivals) {
      if (times > 1) broken.push(`datagram ${name} reached the target ${times} times`)
    }
    const count = (wanted: Fate) => fates.filter((fate) => fate === wanted).length
    return { broken, served: count("served"), refused: count("refused") }
  })

/** What the datagrams may take, there and back, where a window of one small segment makes a round trip each. */
const backlog = ({ datagramVisits, link: { latency = 0, jitter = 0, segment = 65_536, window = 1 } }: Scenario) => {
  const bytes = datagramVisits.flatMap(({ sizes }) => sizes).reduce((sum, size) => sum + size + 100, 0)
  const roundTrip = Duration.times(Duration.sum(latency, jitter), 2)
  return Duration.times(roundTrip, (2 * bytes) / (segment * window))
}

/** The id of a visitor who comes after all faults; those of the scenario are lower. */
const lastId = 255

export const run = (scenario: Scenario): Outcome => {
  const log: Array<string> = []
  const network = SimNetwork.make(scenario.link)
  const logger = Logger.make(({ date, logLevel, message }) => {
    log.push(`${date.getTime()} ${logLevel.label} ${String(message)}`)
  })
  const { elapsed, exit, leftover, steps } = Simulation.run(
    program(scenario, network).pipe(Effect.scoped, Effect.provide(Logger.replace(Logger.defaultLogger, logger))),
    { seed: scenario.seed, maxSteps: 500_000 }
  )
  const broken = Exit.isSuccess(exit) ? [...exit.value.broken] : [String(exit.cause)]
  if (network.open() > 0) broken.push(`${network.open()} connections are open after the end`)
  if (leftover > 0) broken.push(`${leftover} fibers are left after the end`)
  const { refused, served } = Exit.isSuccess(exit) ? exit.value : { served: 0, refused: 0 }
  return { broken, served, refused, log, fingerprint: `${steps} ${elapsed} ${served}` }
}
