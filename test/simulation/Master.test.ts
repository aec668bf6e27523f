import { assert, describe, it } from "@effect/vitest"
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
import type * as Scope from "effect/Scope"
import * as Address from "../../src/core/Address.js"
import { type Action, type Event, Id, type Instance, noMeta, noTraffic } from "../../src/master/Instance.js"
import * as InstanceStore from "../../src/master/InstanceStore.js"
import * as Master from "../../src/master/Master.js"
import * as Settings from "../../src/transport/Settings.js"
import * as SimCertificates from "../../src/testing/SimCertificates.js"
import { Crypto } from "../../src/transport/Crypto.js"
import * as SimCrypto from "../../src/testing/SimCrypto.js"
import * as SimNetwork from "../../src/testing/SimNetwork.js"
import * as Simulation from "../../src/testing/Simulation.js"
import { type Listener, Transport } from "../../src/transport/Transport.js"
import * as Tunnel from "../../src/tunnel/Tunnel.js"
import { runs } from "../Runs.js"
import { textOf, utf8 } from "../Bytes.js"

interface World {
  readonly store: InstanceStore.InstanceStore["Type"]
  /** The files of the master's host. */
  readonly disk: SimCertificates.Disk
  /** The messages in the log of the process. */
  readonly logged: ReadonlyArray<string>
  /** A master on the host `master`, until the scope closes. */
  readonly start: Effect.Effect<Master.Master["Type"], InstanceStore.StoreError, Scope.Scope>
  /** Connects to a port of the master's host and returns the response of the target. */
  readonly visit: (port: number) => Effect.Effect<string, unknown>
}

interface Options {
  readonly seed?: number
  readonly over?: (transport: Transport["Type"]) => Transport["Type"]
  /** The message of a defect that the world has on purpose; any other defect fails the test. */
  readonly defect?: string
  readonly crypto?: Layer.Layer<Crypto>
}

/** Runs the program in a simulated network. Fails when it leaves connections or fibers behind. */
const inWorld = <A, E>(program: (world: World) => Effect.Effect<A, E, Scope.Scope>, options: Options = {}): A => {
  const { defect, over = (same) => same, seed = 1 } = options
  const { crypto = SimCrypto.layer(seed) } = options
  let value: Option.Option<A> = Option.none()
  const network = SimNetwork.make({ latency: "1 millis" })
  const store = InstanceStore.make()
  const disk = SimCertificates.disk(seed)
  const logged: Array<string> = []
  const logger = Logger.make<unknown, void>(({ message }) => {
    logged.push(Array.isArray(message) ? message.join(" ") : String(message))
  })
  const host = Layer.map(network.host("master"), (services) =>
    Context.add(services, Transport, over(Context.get(services, Transport)))
  )
  const start = Effect.map(
    Layer.build(
      Master.layer().pipe(
        Layer.provide([
          Layer.succeed(InstanceStore.InstanceStore, store),
          host,
          crypto,
          disk.layer,
          Tunnel.layerDefaults,
          Settings.layer({ shutdownTimeout: Duration.seconds(1) })
        ])
      )
    ),
    Context.get(Master.Master)
  )
  const visit = (port: number) =>
    Effect.gen(function* () {
      const connection = yield* (yield* Transport).connect(Address.make("master", port))
      yield* connection.write(new Uint8Array(10))
      const answer = yield* connection.read
      yield* connection.end
      return Option.match(answer, { onNone: () => "", onSome: (bytes) => textOf(bytes) })
    }).pipe(Effect.scoped, Effect.provide(network.host("visitor")))
  const target = Effect.gen(function* () {
    const listener = yield* (yield* Transport).listen(Address.make("target", 80))
    const answer = Effect.gen(function* () {
      const connection = yield* listener.accept
      yield* connection.read
      yield* connection.write(utf8("hello"))
      yield* connection.end
      while (Option.isSome(yield* connection.read));
    })
    yield* Effect.forkScoped(Effect.forever(Effect.ignore(Effect.scoped(answer))))
  }).pipe(Effect.provide(network.host("target")))
  const { exit, leftover } = Simulation.run(
    Effect.zipRight(target, program({ disk, logged, store, start, visit })).pipe(
      Effect.map((made) => (value = Option.some(made))),
      Effect.scoped,
      Effect.provide(Logger.replace(Logger.defaultLogger, logger))
    ),
    { seed, maxSteps: 5_000_000 }
  )
  assert.deepStrictEqual([network.open(), leftover], [0, 0])
  if (Exit.isFailure(exit) && !(defect !== undefined && String(exit.cause).includes(defect))) {
    assert.fail(String(exit.cause))
  }
  return Option.getOrThrow(value)
}

const forward = (port: number, query = "") => `client://master:${port}/target:80?mode=1${query}`
const bytesOf = ({ tcprx, tcptx }: Instance) => [tcprx, tcptx]
const eventsOf = (master: Master.Master["Type"]) =>
  Effect.map(master.events.last(10_000), (events) =>
    events.map(({ instance, type }: Event) => `${type} ${instance?.alias ?? ""} ${instance?.status ?? ""}`.trim())
  )

describe("Master", () => {
  it("adopts an API key that another process has stored within a report interval, and keeps it when it saves its alias", () => {
    inWorld(({ start, store }) =>
      Effect.gen(function* () {
        const master = yield* start
        const replaced = yield* Effect.fork(master.keyReplaced)
        yield* Effect.sleep(Duration.seconds(1))
        yield* store.saveIdentity({ keyHash: "another" })
        yield* master.identify({ alias: "web" })
        yield* Effect.sleep(Duration.seconds(6))
        assert.deepInclude(yield* master.identity, { alias: "web", keyHash: "another" })
        yield* Fiber.join(replaced)
        assert.deepInclude(Option.getOrThrow(yield* store.identity), { alias: "web", keyHash: "another" })
      })
    )
  })

  it("starts what it creates, serves visitors and counts their bytes", () =>
    inWorld(({ start, visit }) =>
      Effect.gen(function* () {
        const master = yield* start
        const made = yield* master.create({ url: forward(8080), alias: "web" })
        assert.match(made.id, /^[0-9a-f]{8}$/)
        assert.deepInclude(made, {
          alias: "web",
          type: "client",
          status: "running",
          mode: 1,
          restart: true,
          version: 1
        })
        assert.strictEqual(made.url, `${forward(8080)}&log=info`)
        assert.include(made.config, "slot=65536")
        assert.strictEqual(yield* visit(8080), "hello")
        assert.deepStrictEqual(bytesOf(yield* master.get(made.id)), [5, 10])
      })
    ))

  it("completes a URL with its own log and tls, unless the URL has them", () =>
    inWorld(({ start }) =>
      Effect.gen(function* () {
        const master = yield* start
        const { url } = yield* master.create({ url: "server://k@master:1/target:80" })
        assert.strictEqual(url, "server://k@master:1/target:80?log=info&tls=0")
        const given = "server://k@master:2/target:80?tls=1&log=warn"
        assert.strictEqual((yield* master.create({ url: given })).url, given)
      })
    ))

  it("an instance that cannot start reports the reason, is retried, and affects no other instance", () =>
    inWorld(({ start, visit }) =>
      Effect.gen(function* () {
        const master = yield* start
        const first = yield* master.create({ url: forward(8080) })
        const second = yield* master.create({ url: forward(8080) })
        assert.deepInclude(second, { status: "error", error: "listen master:8080: address already in use" })
        assert.strictEqual(yield* visit(8080), "hello")
        yield* master.remove(first.id)
        yield* Effect.sleep("31 seconds")
        assert.deepInclude(yield* master.get(second.id), { status: "running", error: "" })
        assert.strictEqual(yield* visit(8080), "hello")
      })
    ))

  it("logs why a file cannot be used in the log of the process only, not in responses or the log of the instance", () =>
    inWorld(({ disk, logged, start }) =>
      Effect.gen(function* () {
        const master = yield* start
        const { chain, key } = SimCertificates.issue({ serial: "1", names: ["a"], begins: 0, expires: 1e12 })
        const expired = SimCertificates.issue({ serial: "2", names: ["a"], begins: 0, expires: 0 })
        const foreign = SimCertificates.issue({ serial: "3", names: ["a"], begins: 0, expires: 1e12 })
        const contents = [
          [undefined, undefined],
          ["no certificate", undefined],
          [chain, undefined],
          [chain, "no key"],
          [chain, Redacted.value(foreign.key)],
          [expired.chain, Redacted.value(expired.key)]
        ] as const
        const errors = new Set<string>()
        for (const [crt, ownKey] of contents) {
          yield* disk.write("/a/crt", crt)
          yield* disk.write("/a/key", ownKey)
          const url = "server://k@master:1/target:80?tls=2&crt=/a/crt&key=/a/key&mode=2"
          const { error, id } = yield* master.create({ url })
          const lines = yield* Effect.flatMap(master.logs(id), (log) => log.last(100))
          for (const text of [error, ...lines]) assert.notMatch(text, /no such file|PEM|not the key|expired/)
          assert.include(lines.join("\n"), error)
          errors.add(error)
          yield* master.remove(id)
        }
        assert.deepStrictEqual(
          [...errors],
          ["crt=/a/crt: cannot be used with key=/a/key; the log of the master's process has the reason"]
        )
        for (const detail of ["no such file", "no certificate in PEM", "no private key", "not the key", "expired"]) {
          assert.isTrue(
            logged.some((line) => line.includes(detail)),
            detail
          )
        }
        for (const authority of [undefined, "no certificate"]) {
          yield* disk.write("/a/ca", authority)
          const { error, id } = yield* master.create({ url: "client://k@server:1/target:80?mode=2&ca=/a/ca" })
          assert.strictEqual(error, "ca=/a/ca: cannot be used; the log of the master's process has the reason")
          yield* master.remove(id)
        }
        yield* disk.write("/a/crt", chain)
        yield* disk.write("/a/key", Redacted.value(key))
        const made = yield* master.create({ url: "server://k@master:1/target:80?tls=2&crt=/a/crt&key=/a/key&mode=2" })
        assert.strictEqual(made.status, "running")
      })
    ))

  it("an instance without restart stays in error after a failure, until it is started", () =>
    inWorld(({ start }) =>
      Effect.gen(function* () {
        const master = yield* start
        const first = yield* master.create({ url: forward(8080) })
        const second = yield* master.create({ url: forward(8081) })
        yield* master.patch(second.id, { restart: false })
        const broken = yield* master.replace(second.id, forward(8080))
        assert.strictEqual(broken.status, "error")
        yield* master.patch(first.id, { action: "stop" })
        yield* Effect.sleep("1 minute")
        assert.strictEqual((yield* master.get(second.id)).status, "error")
        const { instance } = yield* master.patch(second.id, { action: "start" })
        assert.strictEqual(instance.status, "running")
      })
    ))

  it("an instance whose accept loop dies restarts, and affects no other instance", () => {
    let deaths = 0
    const over = (transport: Transport["Type"]): Transport["Type"] => ({
      ...transport,
      listen: (address) =>
        Effect.map(transport.listen(address), (listener): Listener =>
          address.port === 8080 && deaths++ === 0
            ? { ...listener, accept: Effect.zipRight(Effect.sleep("1 second"), Effect.dieMessage("a bug")) }
            : listener
        )
    })
    inWorld(
      ({ start, visit }) =>
        Effect.gen(function* () {
          const master = yield* start
          const weak = yield* master.create({ url: forward(8080), alias: "weak" })
          yield* master.create({ url: forward(8081), alias: "strong" })
          yield* Effect.sleep("1 minute")
          assert.strictEqual((yield* master.get(weak.id)).status, "running")
          const events = yield* eventsOf(master)
          assert.include(events, "update weak error")
          assert.notInclude(events, "update strong error")
          assert.strictEqual(yield* visit(8080), "hello")
          assert.strictEqual(yield* visit(8081), "hello")
        }),
      { over, defect: "a bug" }
    )
  })

  it("an action without effect returns the reason", () =>
    inWorld(({ start }) =>
      Effect.gen(function* () {
        const master = yield* start
        const { id } = yield* master.create({ url: forward(8080) })
        const act = (action: Action) => Effect.map(master.patch(id, { action }), ({ note }) => Option.getOrNull(note))
        assert.strictEqual(yield* act("start"), "already running")
        assert.strictEqual(yield* act("stop"), null)
        assert.strictEqual(yield* act("stop"), "already stopped")
        assert.strictEqual(yield* act("restart"), null)
        assert.strictEqual((yield* master.get(id)).status, "running")
      })
    ))

  it("instances have their traffic, aliases, URLs and versions after a restart of the master", () =>
    inWorld(({ start, visit }) =>
      Effect.gen(function* () {
        const before = yield* Effect.scoped(
          Effect.gen(function* () {
            const master = yield* start
            const { id } = yield* master.create({ url: forward(8080), alias: "web" })
            yield* visit(8080)
            yield* master.patch(id, { action: "restart", meta: { tags: { a: "b" } } })
            yield* visit(8080)
            yield* master.replace(id, forward(8081))
            yield* visit(8081)
            yield* master.create({ url: forward(8082) })
            yield* Effect.sleep("1 second")
            return { list: yield* master.list, versions: yield* master.versions(id) }
          })
        )
        const master = yield* start
        yield* Effect.sleep("1 second")
        assert.deepStrictEqual(yield* master.list, before.list)
        const [web] = before.list
        assert.deepStrictEqual(web === undefined ? [] : bytesOf(web), [15, 30])
        assert.deepStrictEqual(yield* master.versions(web?.id ?? ""), before.versions)
        assert.deepStrictEqual(yield* master.problems, [])
      })
    ))

  it("starts the instances that have restart, and no others", () =>
    inWorld(({ start }) =>
      Effect.gen(function* () {
        yield* Effect.scoped(
          Effect.gen(function* () {
            const master = yield* start
            const { id } = yield* master.create({ url: forward(8080), alias: "no" })
            yield* master.patch(id, { restart: false })
            const other = yield* master.create({ url: forward(8081), alias: "yes" })
            yield* master.patch(other.id, { action: "stop" })
          })
        )
        const master = yield* start
        yield* Effect.sleep("1 second")
        assert.deepStrictEqual(
          (yield* master.list).map(({ alias, status }) => [alias, status]),
          [
            ["no", "stopped"],
            ["yes", "running"]
          ]
        )
      })
    ))

  it("shows an instance as starting until its first attempt has ended", () =>
    inWorld(
      ({ start, store }) =>
        Effect.gen(function* () {
          const stored = { alias: "", meta: noMeta, traffic: noTraffic, version: 1, created: 1 }
          for (const [at, port, restart] of [[1, 8080, true] as const, [2, 8081, false] as const]) {
            yield* store.insert({ ...stored, id: Id.make(`0000000${at}`), url: forward(port), restart })
          }
          const master = yield* start
          const shown = Effect.map(master.list, (list) => list.map(({ reason, status }) => `${status}: ${reason}`))
          assert.deepStrictEqual(yield* shown, ["stopped: starting", "stopped: stopped"])
          yield* Effect.sleep("4 seconds")
          assert.deepStrictEqual(yield* shown, ["stopped: starting", "stopped: stopped"])
          yield* Effect.sleep("2 seconds")
          assert.deepStrictEqual(yield* shown, ["running: ", "stopped: stopped"])
          yield* Effect.forkScoped(master.patch("00000001", { action: "restart" }))
          yield* Effect.sleep("4 seconds")
          assert.deepStrictEqual(yield* shown, ["running: starting", "stopped: stopped"])
          yield* Effect.sleep("2 seconds")
          yield* master.patch("00000001", { action: "stop" })
          assert.deepStrictEqual(yield* shown, ["stopped: stopped", "stopped: stopped"])
        }),
      {
        over: (transport) => ({
          ...transport,
          listen: (...given) => Effect.delay(transport.listen(...given), "5 seconds")
        })
      }
    ))

  it("draws an id again that another instance has, or that is being created", () => {
    // The same four bytes twelve times, then others, and so on.
    let draws = 0
    const crypto = Layer.map(SimCrypto.layer(1), (services) => {
      const real = Context.get(services, Crypto)
      const randomBytes = (length: number) =>
        length === 4 ? Effect.sync(() => new Uint8Array(4).fill(Math.floor(draws++ / 12))) : real.randomBytes(length)
      return Context.make(Crypto, { ...real, randomBytes })
    })
    inWorld(
      ({ start, store }) =>
        Effect.gen(function* () {
          const master = yield* start
          const create = (at: number) => master.create({ url: forward(8080 + at) })
          const made = yield* Effect.all(
            Array.from({ length: 4 }, (_, at) => create(at)),
            { concurrency: "unbounded" }
          )
          made.push(yield* create(4))
          assert.sameMembers(
            made.map(({ id }) => id),
            ["00000000", "01010101", "02020202", "03030303", "04040404"]
          )
          assert.lengthOf(yield* store.list, 5)
        }),
      { crypto }
    )
  })

  it("counts each change of URL, alias, restart or meta as a version, and no other", () =>
    inWorld(({ start, store }) =>
      Effect.gen(function* () {
        const master = yield* start
        const { id } = yield* master.create({ url: forward(8080), alias: "a" })
        const versionAfter = <E>(change: Effect.Effect<unknown, E>) =>
          Effect.map(Effect.zipRight(change, master.get(id)), ({ version }) => version)
        assert.strictEqual(yield* versionAfter(master.patch(id, { alias: "a", restart: true, action: "stop" })), 1)
        assert.strictEqual(yield* versionAfter(master.patch(id, { alias: "b" })), 2)
        assert.strictEqual(yield* versionAfter(master.patch(id, { restart: false, meta: { tags: {} } })), 3)
        assert.strictEqual(yield* versionAfter(master.replace(id, forward(8081))), 4)
        assert.strictEqual(yield* versionAfter(master.patch(id, { meta: { peer: { sid: "s" } } })), 5)
        assert.strictEqual(yield* versionAfter(master.patch(id, { action: "reset" })), 5)
        assert.deepStrictEqual(
          (yield* master.versions(id)).map(({ current, version }) => [version, current]),
          [
            [4, true],
            [1, false]
          ]
        )
        assert.strictEqual((yield* store.list)[0]?.version, 5)
        assert.strictEqual(yield* versionAfter(master.rollback(id, 1)), 6)
      })
    ))

  it("rolls back to an earlier URL, as a new version", () =>
    inWorld(({ start, visit }) =>
      Effect.gen(function* () {
        const master = yield* start
        const { id, url } = yield* master.create({ url: forward(8080) })
        yield* master.replace(id, forward(8081))
        assert.strictEqual((yield* Effect.flip(master.replace(id, forward(8081))))._tag, "SameUrl")
        assert.strictEqual((yield* Effect.flip(master.rollback(id, 9)))._tag, "NoVersion")
        assert.deepInclude(yield* master.rollback(id, 1), { url, version: 3, status: "running" })
        assert.strictEqual(yield* visit(8080), "hello")
        assert.deepStrictEqual(
          (yield* master.versions(id)).map(({ current, version }) => [version, current]),
          [
            [3, true],
            [2, false],
            [1, false]
          ]
        )
      })
    ))

  it("reset sets the traffic to zero, also in the store, and new traffic counts from there", () =>
    inWorld(({ start, store, visit }) =>
      Effect.gen(function* () {
        const master = yield* start
        const { id } = yield* master.create({ url: forward(8080) })
        yield* visit(8080)
        assert.deepStrictEqual(bytesOf(yield* master.get(id)), [5, 10])
        const { instance } = yield* master.patch(id, { action: "reset" })
        assert.deepStrictEqual(bytesOf(instance), [0, 0])
        assert.deepStrictEqual((yield* store.list)[0]?.traffic.tcprx, 0)
        yield* visit(8080)
        assert.deepStrictEqual(bytesOf(yield* master.get(id)), [5, 10])
      })
    ))

  it("publishes events in order, and the shutdown last", () =>
    inWorld(({ start, visit }) =>
      Effect.gen(function* () {
        const master = yield* Effect.scoped(
          Effect.gen(function* () {
            const master = yield* start
            const { id } = yield* master.create({ url: forward(8080, "&log=warn"), alias: "a" })
            yield* visit(8080)
            yield* Effect.sleep("6 seconds")
            yield* master.patch(id, { alias: "b" })
            yield* master.patch(id, { action: "stop" })
            yield* master.remove(id)
            return master
          })
        )
        const events = (yield* eventsOf(master)).filter((event) => !event.startsWith("log"))
        assert.deepStrictEqual(events, [
          "create a running",
          "update a running",
          "update b running",
          "update b stopped",
          "delete b stopped",
          "shutdown"
        ])
      })
    ))

  it("a server waits for its client, and a client for its server, until both serve; events say so at once", () =>
    inWorld(({ start }) =>
      Effect.gen(function* () {
        const master = yield* start
        const client = yield* master.create({ url: "client://k@master:1/target:80?mode=2", alias: "c" })
        yield* Effect.sleep("1 second")
        assert.deepInclude(yield* master.get(client.id), {
          status: "running",
          serving: false,
          reason: "connect master:1: connection refused"
        })
        assert.deepStrictEqual(yield* master.problems, [])
        const server = yield* master.create({ url: "server://k@master:1/master:8080?mode=1", alias: "s" })
        assert.deepInclude(server, { status: "running", serving: false, reason: "no client has connected yet" })
        const since = (yield* master.events.last(1000)).length
        yield* Effect.sleep("3 seconds")
        for (const { id } of [server, client]) {
          assert.deepInclude(yield* master.get(id), { status: "running", serving: true, reason: "" })
        }
        // The report interval is 5 s: these did not wait for it.
        const serving = (yield* master.events.last(1000))
          .slice(since)
          .flatMap(({ instance, type }) => (type === "update" && instance?.serving === true ? [instance.alias] : []))
        assert.sameMembers(serving, ["s", "c"])
        const stopped = (yield* master.patch(client.id, { action: "stop" })).instance
        assert.deepInclude(stopped, { status: "stopped", serving: false, reason: "stopped" })
        yield* Effect.sleep("1 second")
        assert.deepInclude(yield* master.get(server.id), {
          status: "running",
          serving: false,
          reason: "the client is away: the peer ended the session"
        })
      })
    ))

  it("a client that failed over serves, and names the server that it cannot reach", () =>
    inWorld(({ start }) =>
      Effect.gen(function* () {
        const master = yield* start
        yield* master.create({ url: "server://k@master:2/master:8080?mode=1" })
        const { id } = yield* master.create({ url: "client://k@master:1,master:2/target:80?mode=2" })
        yield* Effect.sleep("6 seconds")
        const reason = "connected to master:2; not connected: connect master:1: connection refused"
        assert.deepInclude(yield* master.get(id), { status: "running", serving: true, reason })
        yield* master.create({ url: "server://k@master:1/master:8081?mode=1" })
        yield* Effect.sleep("20 seconds")
        assert.deepInclude(yield* master.get(id), { serving: true, reason: "" })
      })
    ))

  it("an instance whose targets all refuse does not serve until one answers, or has not been tried for a while", () =>
    inWorld(({ start, visit }) =>
      Effect.gen(function* () {
        const master = yield* start
        const one = yield* master.create({ url: "client://master:8080/target:81?mode=1" })
        const two = yield* master.create({ url: "client://master:8081/target:81,target:82?mode=1" })
        const both = yield* master.create({ url: "client://master:8082/target:81,target:80?mode=1" })
        for (const { serving } of [one, two, both]) assert.isTrue(serving)
        for (const port of [8080, 8081, 8082]) yield* Effect.ignore(visit(port))
        assert.deepInclude(yield* master.get(one.id), {
          status: "running",
          serving: false,
          reason: "no target answers: connect target:81: connection refused",
          refused: { target: 1 }
        })
        assert.deepInclude(yield* master.get(two.id), {
          serving: false,
          reason: "no target answers: connect target:81: connection refused; connect target:82: connection refused"
        })
        assert.deepInclude(yield* master.get(both.id), { serving: true, reason: "", refused: {} })
        yield* Effect.sleep("31 seconds")
        for (const { id } of [one, two]) assert.deepInclude(yield* master.get(id), { serving: true, reason: "" })
      })
    ))

  it("names the instances in error among its problems while they are, and counts those beyond twenty", () =>
    inWorld(({ start }) =>
      Effect.gen(function* () {
        const master = yield* start
        yield* master.create({ url: forward(8080) })
        const { id } = yield* master.create({ url: forward(8080), alias: "b" })
        assert.deepStrictEqual(yield* master.problems, [
          `instance ${id} (b) is in error: listen master:8080: address already in use`
        ])
        yield* Effect.forEach(Array.from({ length: 21 }), () => master.create({ url: forward(8080) }))
        const problems = yield* master.problems
        assert.strictEqual(problems.length, 21)
        assert.strictEqual(problems[20], "2 more instances are in error")
        for (const { id, status } of yield* master.list) {
          if (status === "error") yield* master.patch(id, { action: "stop" })
        }
        assert.deepStrictEqual(yield* master.problems, [])
      })
    ))

  it("publishes new traffic even if a caller has read it before", () =>
    inWorld(({ start, visit }) =>
      Effect.gen(function* () {
        const master = yield* start
        const { id } = yield* master.create({ url: forward(8080, "&log=warn"), alias: "a" })
        yield* Effect.sleep("1 second")
        yield* visit(8080)
        assert.deepStrictEqual(bytesOf(yield* master.get(id)), [5, 10])
        yield* Effect.sleep("6 seconds")
        const events = yield* master.events.last(10)
        assert.deepStrictEqual(
          events.map(({ instance, type }) => [type, ...(instance === null ? [] : bytesOf(instance))]),
          [
            ["create", 0, 0],
            ["update", 5, 10]
          ]
        )
      })
    ))

  it("closes the log of a removed instance", () =>
    inWorld(({ start }) =>
      Effect.gen(function* () {
        const master = yield* start
        const { id } = yield* master.create({ url: forward(8080) })
        const log = yield* master.logs(id)
        const following = yield* Effect.fork(log.read(yield* log.next, 10))
        yield* master.remove(id)
        assert.deepStrictEqual(yield* Fiber.join(following), Option.none())
      })
    ))

  it("reports a problem while the store fails, also when no change uses it", () =>
    inWorld(({ start, store }) =>
      Effect.gen(function* () {
        let isDown = false
        const { identity } = store
        const error = new InstanceStore.StoreError({ reason: "Unavailable", place: "db", detail: "no answer" })
        Object.assign(store, { identity: Effect.suspend(() => (isDown ? error : identity)) })
        const master = yield* start
        for (const now of [true, false, true]) {
          isDown = now
          yield* Effect.sleep("6 seconds")
          assert.deepStrictEqual(yield* master.storeProblem, now ? Option.some(error.message) : Option.none())
        }
      })
    ))

  it("a store that can be read and refuses changes is a problem until a change succeeds, with no flapping", () =>
    inWorld(({ logged, start, store }) =>
      Effect.gen(function* () {
        const master = yield* start
        const error = new InstanceStore.StoreError({ reason: "Unavailable", place: "disk", detail: "disk full" })
        const { insert, probe } = store
        let isFull = true
        Object.assign(store, {
          probe: Effect.suspend(() => (isFull ? error : probe)),
          insert: (stored: InstanceStore.Stored) => (isFull ? error : insert(stored))
        })
        yield* Effect.flip(master.create({ url: forward(8080) }))
        for (let seconds = 0; seconds < 30; seconds++) {
          yield* Effect.sleep("1 second")
          assert.deepStrictEqual(yield* master.storeProblem, Option.some(error.message))
        }
        assert.strictEqual(logged.filter((line) => line.includes("disk full")).length, 1)
        isFull = false
        yield* Effect.sleep("6 seconds")
        assert.deepStrictEqual(yield* master.storeProblem, Option.none())
      })
    ))

  it("a change that cannot be stored is not made, and is reported until one succeeds", () =>
    inWorld(({ start, store }) =>
      Effect.gen(function* () {
        let isFull = false
        const insert = store.insert
        Object.assign(store, {
          insert: (stored: InstanceStore.Stored) =>
            isFull
              ? new InstanceStore.StoreError({ reason: "Unavailable", place: "disk", detail: "disk full" })
              : insert(stored)
        })
        const master = yield* start
        isFull = true
        const error = yield* Effect.flip(master.create({ url: forward(8080) }))
        assert.strictEqual(error.message, "state disk: disk full")
        assert.deepStrictEqual(yield* master.list, [])
        assert.deepStrictEqual(yield* master.storeProblem, Option.some(error.message))
        isFull = false
        yield* master.create({ url: forward(8080) })
        assert.deepStrictEqual(yield* master.storeProblem, Option.none())
      })
    ))

  it("keeps a bounded traffic history, in order", () =>
    inWorld(({ start }) =>
      Effect.gen(function* () {
        const master = yield* start
        const { id } = yield* master.create({ url: forward(8080) })
        yield* Effect.sleep("1 hour")
        const points = (yield* master.traffic(id)).read(0, 1)
        assert.isTrue(points.length > 200 && points.length < 300, String(points.length))
        assert.deepStrictEqual(
          points.map(({ time }) => time),
          points.map(({ time }) => time).toSorted((a, b) => a - b)
        )
        const coarse = (yield* master.traffic(id)).read(1_800_000, 300_000)
        assert.isTrue(
          coarse.every(({ time }, at) => time >= 1_800_000 && time - (coarse[at - 1]?.time ?? 0) >= 300_000)
        )
      })
    ))

  it.prop(
    "and its store agree after concurrent changes",
    [FastCheck.noShrink(FastCheck.nat())],
    ([seed]) => {
      inWorld(
        ({ start, store, visit }) =>
          Effect.gen(function* () {
            const master = yield* start
            const ports = [8080, 8081, 8082]
            const port = Effect.map(Random.nextIntBetween(0, 3), (at) => ports[at] ?? 0)
            const some = Effect.flatMap(master.list, (list) =>
              Effect.map(Random.nextIntBetween(0, Math.max(1, list.length)), (at) => list[at]?.id ?? "")
            )
            const actions = ["start", "stop", "restart", "reset"] as const
            const step = Effect.gen(function* () {
              const id = yield* some
              const kind = yield* Random.nextIntBetween(0, 8)
              if (kind < 2) yield* master.create({ url: forward(yield* port), alias: String(kind) })
              else if (kind === 2) yield* master.remove(id)
              else if (kind === 3) yield* master.replace(id, forward(yield* port))
              else if (kind === 4) yield* master.rollback(id, 1)
              else yield* master.patch(id, { action: actions[yield* Random.nextIntBetween(0, 4)], alias: String(kind) })
            }).pipe(Effect.ignore)
            const user = Effect.gen(function* () {
              for (let count = 0; count < 6; count++) {
                yield* Effect.sleep(yield* Random.nextIntBetween(0, 300))
                // Some callers are interrupted.
                yield* Effect.timeoutOption(step, yield* Random.nextIntBetween(1, 2000))
              }
            })
            yield* Effect.all([user, user, user, user], { concurrency: 4 })
            yield* Effect.sleep("1 minute")
            const list = yield* master.list
            assert.deepStrictEqual(
              list.map(({ alias, id, url, version }) => ({ alias, id, url, version })),
              (yield* store.list).map(({ alias, id, url, version }) => ({ alias, id, url, version }))
            )
            for (const { id, url, version } of list) {
              const versions = yield* master.versions(id)
              const numbers = versions.map(({ version }) => version)
              assert.deepStrictEqual(
                numbers,
                Array.from(new Set(numbers)).toSorted((a, b) => b - a)
              )
              assert.isTrue((numbers[0] ?? 0) <= version && numbers.at(-1) === 1, numbers.join())
              assert.deepInclude(versions[0], { url, current: true })
            }
            for (const port of ports) {
              const own = list.filter(({ url }) => url.includes(`:${port}/`))
              const running = own.filter(({ status }) => status === "running")
              assert.isTrue(running.length <= 1, "two run on one port")
              const served = yield* Effect.option(visit(port))
              assert.strictEqual(Option.isSome(served), running.length === 1, `port ${port} of seed ${seed}`)
              // An instance whose port has become free was restarted.
              assert.isTrue(running.length === 1 || own.every(({ status }) => status === "stopped"))
            }
          }),
        { seed }
      )
    },
    { fastCheck: { numRuns: runs(2, 25) } }
  )
})
