/**
 * The signals of one tunnel in a simulated world, without its bytes: two sides, and an attacker between them who cuts, delays,
 * repeats, forges, drops and reorders what they send.
 *
 * A scenario is a value that FastCheck draws and shrinks; `run` returns the laws that were broken in it, in words.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Address from "../../../src/core/Address.js"
import * as Deadlines from "../../../src/core/Deadlines.js"
import * as Frame from "../../../src/wire/Frame.js"
import * as Handshake from "../../../src/wire/Handshake.js"
import * as FirstMessage from "../../../src/wire/FirstMessage.js"
import type * as Key from "../../../src/wire/Key.js"
import * as TunnelKey from "../../../src/wire/TunnelKey.js"
import * as HelloGuard from "../../../src/tunnel/HelloGuard.js"
import * as NodeDeflate from "../../../src/node/process/NodeDeflate.js"
import * as Refusals from "../../../src/core/Refusals.js"
import * as Settings from "../../../src/transport/Settings.js"
import * as Signal from "../../../src/wire/Signal.js"
import * as SignalBus from "../../../src/signal/SignalBus.js"
import * as SimCrypto from "../../../src/testing/SimCrypto.js"
import * as SimNetwork from "../../../src/testing/SimNetwork.js"
import * as Simulation from "../../../src/testing/Simulation.js"
import { type Connection, type Listener, serve, Transport } from "../../../src/transport/Transport.js"
import * as EventBus from "../../../src/core/EventBus.js"
import { utf8 } from "../../Bytes.js"
import * as SignalCounts from "../../../src/signal/SignalCounts.js"
import * as SignalFeed from "../../../src/signal/SignalFeed.js"

export interface Outcome {
  /** Laws broken, in words. */
  readonly broken: ReadonlyArray<string>
  /** Equal scenarios have equal fingerprints. */
  readonly fingerprint: string
  readonly launched: number
  readonly refused: number
  /** How often a session was resumed. */
  readonly resumed: number
  readonly log: ReadonlyArray<string>
}

type Side = "server" | "client"

type Fault = { readonly atMillis: number } &
  /** The control connection is reset after so many more bytes, both ways together. */
  (
    | { readonly _tag: "Cut"; readonly bytes: number }
    /** Nothing arrives and nothing fails. */
    | { readonly _tag: "Partition"; readonly millis: number }
    /** A side stands still, as under SIGSTOP: no timer and no read of it completes, and its connections stay open. */
    | { readonly _tag: "Stop"; readonly side: Side; readonly millis: number }
    /** The attacker sends noise, or messages that it recorded on this connection or an earlier one. */
    | { readonly _tag: "Forge"; readonly count: number }
    /** The attacker delays what it receives. */
    | { readonly _tag: "Hold"; readonly millis: number }
    /** The attacker drops messages, or sends them behind those that follow them. */
    | { readonly _tag: "Drop" | "Swap"; readonly count: number }
  )

export interface Scenario {
  readonly seed: number
  readonly link: SimNetwork.Link
  readonly sender: Side
  /** Seconds of a side for each second of the world. */
  readonly rates: { readonly server: number; readonly client: number }
  /** Milliseconds by which a side's time of day is ahead of the world's. */
  readonly ahead: { readonly server: number; readonly client: number }
  /** When each launch is asked for, in milliseconds. */
  readonly launches: ReadonlyArray<number>
  readonly faults: ReadonlyArray<Fault>
  /** Signals that may wait in the outbox. */
  readonly limit: number
  /** Milliseconds that a key lasts. */
  readonly lifetime: number
  /** Milliseconds that a handler takes. */
  readonly handling: number
}

const grace = 10_000
const settings = ({ lifetime, limit }: Scenario): Settings.Settings["Type"] => ({
  ...Settings.defaults,
  keyLifetime: Duration.millis(lifetime),
  signalQueue: limit,
  reportInterval: Duration.millis(1500),
  handshakeTimeout: Duration.seconds(3),
  poolGetTimeout: Duration.seconds(20),
  resumeGrace: Duration.millis(grace)
})

const { constant, constantFrom, integer, nat, oneof, record } = FastCheck

const side = constantFrom<Side>("server", "client")
const atMillis = nat(6000)
const fault: FastCheck.Arbitrary<Fault> = oneof(
  {
    weight: 3,
    arbitrary: record({ _tag: constant("Cut" as const), atMillis, bytes: oneof(nat(300), nat(2000), nat(2000)) })
  },
  {
    weight: 1,
    arbitrary: record({
      _tag: constant("Partition" as const),
      atMillis,
      millis: constantFrom(50, 1500, 3000, 2 * grace)
    })
  },
  {
    weight: 1,
    arbitrary: record({
      _tag: constant("Stop" as const),
      atMillis,
      side,
      millis: constantFrom(300, 1500, 4500, 2 * grace)
    })
  },
  {
    weight: 1,
    arbitrary: record({ _tag: constant("Forge" as const), atMillis, count: integer({ min: 1, max: 30 }) })
  },
  {
    weight: 1,
    arbitrary: record({ _tag: constant("Hold" as const), atMillis, millis: integer({ min: 1, max: 1000 }) })
  },
  {
    weight: 1,
    arbitrary: record({
      _tag: constantFrom("Drop" as const, "Swap" as const),
      atMillis,
      count: integer({ min: 1, max: 3 })
    })
  }
)

export const scenario: FastCheck.Arbitrary<Scenario> = record({
  seed: FastCheck.noShrink(nat(1_000_000)),
  link: record({
    latency: constantFrom(0, 1, 20, 150),
    jitter: constantFrom(0, 0, 30),
    window: integer({ min: 3, max: 16 }),
    segment: constantFrom(65_536, 700, 200)
  }),
  sender: side,
  rates: record({ server: constantFrom(1, 1, 0.8, 1.25), client: constantFrom(1, 1, 0.8, 1.25) }),
  ahead: record({ server: constantFrom(0, 0, 150_000), client: constantFrom(0, 0, 150_000) }),
  launches: constantFrom(10, 2000, 6000).chain((until) =>
    oneof(
      { weight: 5, arbitrary: FastCheck.array(nat(until), { minLength: 1, maxLength: 12, size: "max" }) },
      { weight: 1, arbitrary: FastCheck.array(nat(until), { minLength: 40, maxLength: 60, size: "max" }) }
    ).map((launches) => launches.toSorted((left, right) => left - right))
  ),
  faults: oneof(
    { weight: 3, arbitrary: FastCheck.array(fault, { maxLength: 1 }) },
    { weight: 2, arbitrary: FastCheck.array(fault, { minLength: 1, maxLength: 4 }) }
  ).map((faults) => faults.toSorted((left, right) => left.atMillis - right.atMillis)),
  limit: constantFrom(65_536, 16, 2),
  lifetime: constantFrom(3_600_000, 300, 1),
  handling: constantFrom(0, 0, 1)
})

const oneOf = <const A>(...values: readonly [A, ...ReadonlyArray<A>]) =>
  Effect.map(Random.nextIntBetween(0, values.length), (index) => values[index] ?? values[0])

/** A clock of its own, that is ahead or behind, runs faster or slower, and can stand still. */
const makeClock = (clock: Clock.Clock, rate: number, ahead: number) => {
  let stopped = 0
  const millis = () => clock.unsafeCurrentTimeMillis() * rate + ahead
  const wait = (until: number): Effect.Effect<void> =>
    Effect.suspend(() => {
      const now = clock.unsafeCurrentTimeMillis()
      const left = Math.max(until, stopped) - now
      return left <= 1e-6 ? Effect.void : Effect.zipRight(clock.sleep(Duration.millis(left)), wait(until))
    })
  const own: Clock.Clock = {
    [Clock.ClockTypeId]: Clock.ClockTypeId,
    unsafeCurrentTimeMillis: millis,
    unsafeCurrentTimeNanos: () => BigInt(Math.floor(millis() * 1e6)),
    currentTimeMillis: Effect.sync(millis),
    currentTimeNanos: Effect.sync(() => BigInt(Math.floor(millis() * 1e6))),
    sleep: (duration) =>
      Effect.suspend(() => wait(clock.unsafeCurrentTimeMillis() + Duration.toMillis(duration) / rate))
  }
  return {
    own,
    stop: (millis: number) => {
      stopped = clock.unsafeCurrentTimeMillis() + millis
    }
  }
}

/** A connection whose timers follow the world's clock, not the clock of the side that uses it. */
const onClock = (connection: Connection, clock: Clock.Clock): Connection => ({
  ...connection,
  read: Effect.withClock(connection.read, clock),
  write: (chunk) => Effect.withClock(connection.write(chunk), clock),
  end: Effect.withClock(connection.end, clock),
  reset: Effect.withClock(connection.reset, clock)
})

const address = Address.make("server", 1)
const middleAddress = Address.make("middle", 1)

/** Forwards bytes between the sides, and changes them on request. */
const makeAttacker = (transport: Transport["Type"], listener: Listener) =>
  Effect.gen(function* () {
    let left = Infinity
    let heldUntil = 0
    let passed = 0
    let forging = 0
    let dropping = 0
    let swapping = 0
    const recording: Array<Uint8Array> = []
    const pump = (from: Connection, to: Connection, cut: Effect.Effect<void>) =>
      Effect.gen(function* () {
        const decoder = Frame.makeDecoder({ limit: 65_535 })
        let fresh = true
        /** Bytes of a message that has not ended. */
        let begun = 0
        let late: Uint8Array = new Uint8Array(0)
        /** Whole messages, less one that is taken out, or with one behind the others. */
        const meddle = (bytes: Uint8Array) => {
          const end = Frame.headerLength + (Frame.lengthOf(bytes) ?? 0)
          const [first, others] = [bytes.subarray(0, end), bytes.subarray(end)]
          if (dropping > 0) {
            dropping--
            return others
          }
          const behind = late
          late = new Uint8Array(0)
          if (swapping === 0 || behind.length > 0) return Frame.concat([bytes, behind])
          swapping--
          if (others.length > 0) return Frame.concat([others, first])
          late = first
          return others
        }
        while (true) {
          const chunk = yield* from.read
          if (Option.isNone(chunk)) return yield* to.end
          const now = yield* Clock.currentTimeMillis
          if (heldUntil > now) yield* Effect.sleep(heldUntil - now)
          const bytes = chunk.value.subarray(0, Math.min(chunk.value.length, left))
          left -= bytes.length
          passed += bytes.length
          const messages = decoder.push(bytes)
          const ended = messages._tag === "Right" ? messages.right : []
          recording.push(...ended)
          begun += bytes.length - ended.reduce((sum, { length }) => sum + Frame.headerLength + length, 0)
          // Only between two messages: within one it would be the same as a cut.
          const whole = begun === 0
          const sent = fresh && whole ? meddle(bytes) : bytes
          if (sent.length > 0) yield* to.write(sent)
          fresh = whole
          if (left <= 0) return yield* cut
          const forged: Array<Uint8Array> = []
          while (whole && forging > 0) {
            forging--
            const recorded = recording[yield* Random.nextIntBetween(0, recording.length)] ?? new Uint8Array(3)
            forged.push(Frame.message(yield* oneOf(recorded, recorded, recorded.subarray(1), utf8("#i"))))
          }
          if (forged.length > 0) yield* to.write(Frame.concat(forged))
        }
      })
    const carry = (from: Connection) =>
      Effect.gen(function* () {
        const to = yield* transport.connect(address)
        const cut = Effect.suspend(() => {
          left = Infinity
          return Effect.zipRight(from.reset, to.reset)
        })
        const both = [pump(from, to, cut), pump(to, from, cut)]
        yield* Effect.all(both, { concurrency: 2, discard: true })
      }).pipe(Effect.ensuring(from.reset), Effect.scoped, Effect.ignore)
    const parent = yield* Effect.scope
    yield* Effect.forkScoped(Effect.provideService(serve(listener, carry), Scope.Scope, parent))
    return {
      cutAfter: (bytes: number) => (left = bytes),
      hold: (until: number) => (heldUntil = Math.max(heldUntil, until)),
      forge: (count: number) => (forging = count),
      drop: (count: number) => (dropping = count),
      swap: (count: number) => (swapping = count),
      passed: () => passed
    }
  })

/** One side's session, while it has one. */
interface Standing {
  readonly keys: Key.SessionKeys
  readonly bus: SignalBus.SignalBus["Type"]
  readonly scope: Scope.CloseableScope
}

type Fate = "waiting" | "kept" | "refused" | "failed"

const program = (scenario: Scenario, network: SimNetwork.SimNetwork) =>
  Effect.gen(function* () {
    const { seed } = scenario
    const clock = yield* Effect.clock
    const broken: Array<string> = []
    const [client, middle, server] = yield* Effect.forEach(["client", "middle", "server"], (name) =>
      Effect.provide(Transport, network.host(name))
    )
    if (client === undefined || middle === undefined || server === undefined) return yield* Effect.dieMessage("no host")
    const attacker = yield* makeAttacker(middle, yield* middle.listen(middleAddress))
    const listener = yield* server.listen(address)
    const key = yield* Effect.provide(TunnelKey.make(Option.some(Redacted.make("key"))), SimCrypto.layer(seed))
    const salt = yield* Effect.provide(TunnelKey.saltOf(address), SimCrypto.layer(seed))
    const psk = yield* TunnelKey.derive(key, salt)
    const guard = yield* HelloGuard.make
    const clocks = {
      server: makeClock(clock, scenario.rates.server, scenario.ahead.server),
      client: makeClock(clock, scenario.rates.client, scenario.ahead.client)
    }
    const standing: { server: Standing | undefined; client: Standing | undefined } = {
      server: undefined,
      client: undefined
    }
    const handled: Array<number> = []
    const fates: Array<Fate> = scenario.launches.map(() => "waiting")
    /** Launches whose handle completed. */
    const completed = new Set<number>()
    const sessions = { server: 0, client: 0 }
    let asked = 0
    /** In which order launches came to the bus. */
    const order = new Map<number, number>()
    let resumed = 0

    const end = (side: Side, here: Standing | undefined) =>
      Effect.suspend(() => {
        if (here === undefined) return Effect.void
        if (standing[side] === here) standing[side] = undefined
        return Scope.close(here.scope, Exit.void)
      })
    const begin = (side: Side, keys: Key.SessionKeys, parent: Scope.Scope) =>
      Effect.gen(function* () {
        yield* end(side, standing[side])
        const scope = yield* Scope.fork(parent, { _tag: "Sequential" })
        const bus = yield* Scope.extend(SignalBus.make, scope)
        const here: Standing = { keys, bus, scope }
        sessions[side]++
        standing[side] = here
        const handler = (signal: SignalBus.Delivered) =>
          Effect.gen(function* () {
            if (signal._tag === "Launch") handled.push(signal.visitor.port)
            yield* Effect.sleep(scenario.handling)
          })
        yield* bus.run(handler).pipe(
          Effect.catchAll(() => end(side, here)),
          Effect.forkIn(scope)
        )
        return here
      })

    /** As `Client` does it. */
    const connect = Effect.gen(function* () {
      const parent = yield* Effect.scope
      while (true) {
        yield* Effect.gen(function* () {
          const connection = onClock(
            yield* Effect.timeout(Effect.withClock(client.connect(middleAddress), clock), "2 seconds"),
            clock
          )
          const before = standing.client
          const resume = before && { keys: before.keys, received: before.bus.received() }
          const agreement = yield* Handshake.accept(connection, {
            psk,
            salt,
            client: "0123456789abcdef",
            tls: "plain",
            resume
          })
          const { dialect } = agreement
          if (agreement._tag === "Resumed" && before !== undefined) {
            resumed++
            yield* before.bus.attach({ connection, dialect, received: agreement.received })
          } else {
            const { bus } = yield* begin("client", agreement.keys, parent)
            yield* bus.attach({ connection, dialect })
          }
        }).pipe(Effect.scoped, Effect.ignore)
        yield* Effect.sleep(100)
      }
    })
    /** As `Server` does it. */
    const accept = Effect.gen(function* () {
      const parent = yield* Effect.scope
      const greet = (connection: Connection) =>
        Effect.gen(function* () {
          const newcomer = yield* FirstMessage.receive(connection, { keys: Effect.succeed([key]), guard })
          if (newcomer._tag === "Join") return
          const candidate = yield* Handshake.challenge(connection, newcomer)
          const { dialect } = candidate
          const before = standing.server
          if (before !== undefined && Handshake.belongsTo(candidate, before.keys)) {
            yield* Handshake.resume(connection, candidate, { keys: before.keys, received: before.bus.received() })
            const received = Option.match(candidate.resume, { onNone: () => -1, onSome: ({ received }) => received })
            return yield* before.bus.attach({ connection, dialect, received })
          }
          const { bus } = yield* begin("server", candidate.keys, parent)
          yield* Handshake.grant(
            connection,
            candidate,
            new Signal.Terms({ max: 9, receiver: "server", tls: "plain", fingerprint: Option.none() })
          )
          return yield* bus.attach({ connection, dialect })
        }).pipe(Effect.ensuring(connection.reset), Effect.ignore)
      while (true) {
        const scope = yield* Scope.fork(parent, { _tag: "Sequential" })
        const connection = onClock(yield* Effect.withClock(Scope.extend(listener.accept, scope), clock), clock)
        yield* Effect.forkIn(
          Effect.ensuring(greet(connection), Effect.withClock(Scope.close(scope, Exit.void), clock)),
          parent
        )
      }
    })

    /** As `Router` does it: a launch that finds no session waits for the next one. */
    const launch = (index: number, at: number): Effect.Effect<void, never, Scope.Scope> =>
      Effect.gen(function* () {
        yield* Effect.sleep(at)
        while (true) {
          const here = standing[scenario.sender]
          if (here === undefined) {
            yield* Effect.sleep(50)
            continue
          }
          const signal = Signal.makeLaunch({
            protocol: "tcp",
            id: Signal.ConnectionId.make(index.toString(16).padStart(8, "0")),
            visitor: Address.make("198.51.100.1", index),
            entry: Option.some(address)
          })
          order.set(index, asked++)
          const launched = yield* Effect.exit(here.bus.launch(signal))
          if (Exit.isFailure(launched)) continue
          fates[index] = "kept"
          yield* launched.value.whenRefused(
            Effect.sync(() => {
              if (fates[index] === "refused") broken.push(`launch ${index} was refused twice`)
              fates[index] = "refused"
            })
          )
          yield* Effect.forkScoped(Effect.map(launched.value.refused, () => completed.add(index)))
          return
        }
      })

    const environment = (host: number) =>
      Layer.mergeAll(
        Deadlines.layer,
        Layer.provideMerge(Refusals.layer, EventBus.layerNoop),
        SignalCounts.layer,
        SignalFeed.layerNone,
        NodeDeflate.layer,
        SimCrypto.layer(seed * 2 + host),
        Layer.succeed(Settings.Settings, settings(scenario))
      )
    const services = {
      server: yield* Effect.withClock(Layer.build(Layer.fresh(environment(0))), clocks.server.own),
      client: yield* Effect.withClock(Layer.build(Layer.fresh(environment(1))), clocks.client.own)
    }
    const on = <A, E, R>(side: Side, effect: Effect.Effect<A, E, R>) =>
      effect.pipe(Effect.provide(services[side]), Effect.withClock(clocks[side].own))

    const scope = yield* Scope.make()
    yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
    yield* Effect.forkIn(Scope.extend(on("server", accept), scope), scope)
    yield* Effect.forkIn(Scope.extend(on("client", connect), scope), scope)

    const apply = (fault: Fault): Effect.Effect<void> => {
      const frozen = (hosts: readonly [string, string], millis: number) =>
        Effect.zipRight(network.partition(...hosts), Effect.delay(network.heal(...hosts), millis))
      switch (fault._tag) {
        case "Cut":
          return Effect.sync(() => attacker.cutAfter(fault.bytes))
        case "Partition":
          return frozen(["middle", "server"], fault.millis)
        case "Stop":
          clocks[fault.side].stop(fault.millis)
          return frozen(["middle", fault.side], fault.millis)
        case "Forge":
          return Effect.sync(() => attacker.forge(fault.count))
        case "Drop":
          return Effect.sync(() => attacker.drop(fault.count))
        case "Swap":
          return Effect.sync(() => attacker.swap(fault.count))
        case "Hold":
          return Effect.map(Clock.currentTimeMillis, (now) => attacker.hold(now + fault.millis))
      }
    }
    yield* Effect.forEach(scenario.faults, (fault) => Effect.fork(Effect.delay(apply(fault), fault.atMillis)), {
      discard: true
    })
    const watcher = yield* Effect.forkScoped(
      Effect.forever(
        Effect.gen(function* () {
          yield* Effect.sleep(331)
          const waiting = yield* standing[scenario.sender]?.bus.waiting ?? Effect.succeed(0)
          if (waiting > scenario.limit) broken.push(`the outbox held ${waiting} launches of ${scenario.limit}`)
        })
      )
    )
    const launching = yield* Effect.forEach(scenario.launches, (at, index) =>
      Effect.fork(on(scenario.sender, Scope.extend(launch(index, at), scope)))
    )
    yield* Effect.forEach(launching, Fiber.join, { discard: true })
    yield* Effect.sleep(Math.max(0, ...scenario.faults.map(({ atMillis }) => atMillis + 1)))
    const settled = Effect.sync(() => {
      const done = new Set(handled)
      return fates.every((fate, index) => fate === "refused" || (fate === "kept" && done.has(index)))
    })
    // The last partition, the grace, and what a launch may wait, by the slower clock.
    yield* Effect.iterate(2 * grace + 12_000 + 25_000, {
      while: (left) => left > 0,
      body: (left) =>
        Effect.flatMap(settled, (settled) =>
          settled ? Effect.succeed(0) : Effect.delay(Effect.succeed(left - 500), 500)
        )
    })
    // What the faults take at most, with a handshake that times out for each, by the faster clock.
    const outageOf = (fault: Fault) => {
      if ("millis" in fault) return fault.millis + 3300
      return fault._tag === "Drop" || fault._tag === "Swap" ? 4500 * fault.count : 300
    }
    const outage = scenario.faults.reduce((sum, fault) => sum + outageOf(fault), 0)
    // Repeated lines have arrived by now, and sides that were away are back.
    const back = Effect.sync(() => standing.client?.bus.isAttached() ?? false)
    yield* Effect.sleep(2500)
    const stands = yield* Effect.iterate(40 + Math.ceil(outage / 500), {
      while: (left) => left > 0,
      body: (left) =>
        Effect.flatMap(back, (back) => (back ? Effect.succeed(-1) : Effect.delay(Effect.succeed(left - 1), 500)))
    })
    watcher.unsafeInterruptAsFork(watcher.id())

    const { launch: counted } = yield* Context.get(services[scenario.sender], Refusals.Refusals).counts
    const refused = fates.filter((fate) => fate === "refused").length
    if (counted !== refused) broken.push(`${refused} launches were refused, and ${counted} counted`)
    const times = new Map<number, number>()
    for (const index of handled) times.set(index, (times.get(index) ?? 0) + 1)
    fates.forEach((fate, index) => {
      const count = times.get(index) ?? 0
      if (count > 1) broken.push(`launch ${index} was launched ${count} times`)
      if (completed.has(index) !== (fate === "refused")) broken.push(`launch ${index} was ${fate}: wrong handle`)
      if (count === 0 && fate !== "refused") broken.push(`launch ${index} was ${fate}, and never launched`)
    })
    if (outage < grace / 1.25) {
      if (sessions.client !== 1) broken.push(`the client had ${sessions.client} sessions in spite of the grace`)
      // A session whose handshake was cut before the client knew of it cannot be resumed.
      if (sessions.server === 1 && refused > 0) broken.push(`${refused} launches were refused in spite of the grace`)
      const overtaken = handled.filter(
        (index, at) => at > 0 && (order.get(index) ?? 0) < (order.get(handled[at - 1] ?? 0) ?? 0)
      )
      if (sessions.server === 1 && overtaken.length > 0) broken.push(`${overtaken.length} launches were overtaken`)
    }
    if (stands === 0) {
      broken.push("no control connection stands after the last fault")
    }
    yield* Scope.close(scope, Exit.void)
    return { broken, refused, launched: handled.length, resumed, fingerprint: attacker.passed() }
  })

export const run = (scenario: Scenario): Outcome => {
  const network = SimNetwork.make(scenario.link)
  const log: Array<string> = []
  const logger = Logger.make(({ annotations, date, message }) => {
    log.push(`${date.getTime()} ${String(message)} ${JSON.stringify(Array.from(annotations))}`)
  })
  const { elapsed, exit, leftover, steps } = Simulation.run(
    program(scenario, network).pipe(Effect.scoped, Effect.provide(Logger.replace(Logger.defaultLogger, logger))),
    { seed: scenario.seed, maxSteps: 400_000 }
  )
  const value = Exit.isSuccess(exit)
    ? exit.value
    : { broken: [String(exit.cause)], refused: 0, launched: 0, resumed: 0, fingerprint: 0 }
  const broken = [...value.broken]
  if (network.open() > 0) broken.push(`${network.open()} connections are open after the end`)
  if (leftover > 0) broken.push(`${leftover} fibers are left after the end`)
  return { ...value, broken, log, fingerprint: `${steps} ${elapsed} ${value.fingerprint}` }
}
