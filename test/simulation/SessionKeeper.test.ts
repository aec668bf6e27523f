import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as SimCrypto from "../../src/testing/SimCrypto.js"
import { Crypto } from "../../src/transport/Crypto.js"
import * as Settings from "../../src/transport/Settings.js"
import * as SessionKeeper from "../../src/tunnel/SessionKeeper.js"
import * as SessionState from "../../src/tunnel/SessionState.js"
import { type Place, SessionStore, SessionStoreError } from "../../src/tunnel/SessionStore.js"
import * as Key from "../../src/wire/Key.js"
import * as Signal from "../../src/wire/Signal.js"
import * as TunnelKey from "../../src/wire/TunnelKey.js"
import { runs } from "../Runs.js"
import * as Simulated from "../Simulated.js"
import * as MemoryStore from "./worlds/MemoryStore.js"
import * as SmallWorld from "./worlds/SmallWorld.js"
import { clientConfig, serverConfig } from "./worlds/SmallWorld.js"

const tunnel = "server:1"
const full = new SessionStoreError({ operation: "write", file: "/state/x.json", cause: new Error("disk full") })

/** A session whose counters a test moves, and which obeys what is reserved. */
const makeLive = (key: TunnelKey.TunnelKey, keys: Key.SessionKeys, restored?: SessionState.SessionState) => {
  const limits = { numbers: Infinity, joins: Infinity }
  const used = { next: restored?.bus.outbox.next ?? 0, joins: restored?.pool.joins ?? 0 }
  let signals: ReadonlyArray<{ readonly signal: Signal.Signal; readonly number: number | undefined }> = []
  const proof = { key, salt: "00", keys }
  const live: SessionKeeper.Live = {
    state: () => ({
      client: "0123456789abcdef",
      proof,
      terms: "np://8/-#0",
      streams: false,
      bus: { outbox: { next: used.next, signals }, received: -1 },
      pool: { ids: 0, joins: used.joins }
    }),
    reserve: (next) => void Object.assign(limits, next),
    restored
  }
  return {
    live,
    used,
    /** Uses so many numbers and counts, as far as they are reserved. */
    use: (numbers: number, joins: number) => {
      used.next = Math.min(used.next + numbers, Math.max(used.next, limits.numbers))
      used.joins = Math.min(used.joins + joins, Math.max(used.joins, limits.joins))
    },
    put: (signal: Signal.Signal) => {
      signals = [...signals, { signal, number: used.next }]
      used.next++
    }
  }
}

interface World {
  readonly store: MemoryStore.MemoryStore
  readonly keeper: SessionKeeper.SessionKeeper
  readonly key: TunnelKey.TunnelKey
  readonly keys: Key.SessionKeys
  readonly log: ReadonlyArray<string>
  /** The state that another process would continue now. */
  readonly kept: Effect.Effect<Option.Option<SessionState.SessionState>, unknown, Crypto>
}

const world = <A, E>(
  seed: number,
  wrap: MemoryStore.Options["wrap"],
  program: (world: World) => Effect.Effect<A, E, Crypto>
): A => {
  const store = MemoryStore.make(wrap === undefined ? {} : { wrap })
  const log: Array<string> = []
  const logger = Logger.make(({ message }) => void log.push(String(message)))
  return Simulated.run({ seed }, () =>
    Effect.gen(function* () {
      const crypto = yield* Crypto
      const key = yield* TunnelKey.make(Option.some(Redacted.make("key")))
      const keys = Key.session(crypto, Redacted.make(new Uint8Array(32).fill(7)))
      const keeper = yield* SessionKeeper.make(tunnel)
      const kept = Effect.suspend(() => {
        const text = store.texts.get(tunnel)
        return text === undefined
          ? Effect.succeedNone
          : Effect.map(SessionState.fromText(crypto, text, key), ({ state }) => state)
      })
      return yield* program({ store, keeper, key, keys, log, kept })
    }).pipe(
      Effect.scoped,
      Effect.provide([
        SimCrypto.layer(seed),
        Settings.layer(),
        store.layer,
        Logger.replace(Logger.defaultLogger, logger)
      ])
    )
  )
}

type Step = { readonly numbers: number; readonly joins: number; readonly wait: number }

describe("SessionKeeper", () => {
  it.prop(
    "another process never gets a number that this one has used, however slow the store is and whenever this one is killed",
    [
      FastCheck.integer(),
      FastCheck.integer({ min: 0, max: 3000 }),
      FastCheck.array(
        FastCheck.record<Step>({
          numbers: FastCheck.integer({ min: 0, max: 12_000 }),
          joins: FastCheck.integer({ min: 0, max: 12_000 }),
          wait: FastCheck.integer({ min: 0, max: 4000 })
        }),
        { minLength: 1, maxLength: 20 }
      ),
      FastCheck.array(FastCheck.boolean(), { maxLength: 20 })
    ],
    ([seed, delay, steps, failures]) => {
      let writes = 0
      const slow = (place: Place): Partial<Place> => ({
        write: (text, options) =>
          Effect.suspend(() => {
            const early = Effect.delay(place.write(text, options), Duration.millis(delay / 2))
            const fails = failures[writes++] === true
            return fails ? Effect.zipRight(early, full) : Effect.delay(early, Duration.millis(delay / 2))
          })
      })
      world(seed, slow, ({ keeper, kept, key, keys }) =>
        Effect.gen(function* () {
          const { live, use, used } = makeLive(key, keys)
          keeper.keep(live)
          for (const { joins, numbers, wait } of steps) {
            use(numbers, joins)
            keeper.touch()
            yield* Effect.sleep(Duration.millis(wait))
            const state = yield* kept
            if (Option.isNone(state)) continue
            assert.isAtLeast(state.value.bus.outbox.next, used.next)
            assert.isAtLeast(state.value.pool.joins, used.joins)
            // The other side remembers what is so far below.
            assert.isBelow(state.value.bus.outbox.next - used.next, 65_536)
          }
        })
      )
    },
    { fastCheck: { numRuns: runs(60, 2000) } }
  )

  it("stores a signal that waits soon, many changes at once, and nothing while nothing changes but that the session lives", () => {
    world(1, undefined, ({ keeper, kept, key, keys, store }) =>
      Effect.gen(function* () {
        const { live, put, use } = makeLive(key, keys)
        keeper.keep(live)
        yield* Effect.sleep(Duration.millis(150))
        put(new Signal.Flush())
        keeper.touch()
        yield* Effect.sleep(Duration.millis(150))
        assert.strictEqual(Option.getOrThrow(yield* kept).bus.outbox.signals.length, 1)
        const before = store.written.length
        for (let n = 0; n < 100; n++) {
          use(1, 0)
          keeper.touch()
          yield* Effect.sleep(Duration.millis(10))
        }
        // Numbers below those that are reserved change nothing.
        assert.strictEqual(store.written.length, before)
        yield* Effect.sleep(Duration.minutes(1))
        const refreshes = store.written.slice(before)
        assert.isAtLeast(refreshes.length, 5)
        assert.isAtMost(refreshes.length, 7)
        assert.isFalse(refreshes.some(({ isDurable }) => isDurable))
        assert.isAtMost(store.written.filter(({ isDurable }) => isDurable).length, 1)
      })
    )
  })

  it("on a full disk it says so once, keeps nothing stale, holds up nothing, and keeps the session again later", () => {
    let isFull = false
    const wrap = (place: Place): Partial<Place> => ({
      write: (text, options) => Effect.suspend(() => (isFull ? full : place.write(text, options)))
    })
    world(1, wrap, ({ keeper, kept, key, keys, log }) =>
      Effect.gen(function* () {
        const { live, use, used } = makeLive(key, keys)
        keeper.keep(live)
        yield* Effect.sleep(Duration.seconds(1))
        assert.isTrue(Option.isSome(yield* kept))
        isFull = true
        use(SessionKeeper.block, 0)
        keeper.touch()
        yield* Effect.sleep(Duration.seconds(1))
        assert.deepStrictEqual(yield* kept, Option.none())
        use(10 * SessionKeeper.block, 0)
        assert.strictEqual(used.next, 11 * SessionKeeper.block)
        yield* Effect.sleep(Duration.minutes(1))
        const line = "cannot write the session to /state/x.json: disk full; if this process is killed, a new one begins"
        assert.deepStrictEqual(log, [line])
        isFull = false
        yield* Effect.sleep(Duration.seconds(11))
        assert.strictEqual(Option.getOrThrow(yield* kept).bus.outbox.next, 12 * SessionKeeper.block)
        assert.deepStrictEqual(log, [line, "the session is kept again"])
      })
    )
  })

  it("continues behind what a process could have used that was killed as soon as it had restored the session", () => {
    const next = world(1, undefined, ({ keeper, kept, key, keys }) =>
      Effect.gen(function* () {
        yield* keeper.save(makeLive(key, keys).live.state() ?? assert.fail("over"))
        const found: Array<number> = []
        for (let process = 0; process < 3; process++) {
          const restored = yield* keeper.restore({ key, accepts: () => true })
          found.push(Option.getOrThrow(restored).bus.outbox.next, Option.getOrThrow(yield* kept).bus.outbox.next)
        }
        return found
      })
    )
    const { block } = SessionKeeper
    assert.deepStrictEqual(next, [0, block, block, 2 * block, 2 * block, 3 * block])
  })

  it("leaves nothing of a session that is over", () => {
    world(1, undefined, ({ keeper, key, keys, store }) =>
      Effect.gen(function* () {
        const { live } = makeLive(key, keys)
        keeper.keep(live)
        yield* Effect.sleep(Duration.seconds(1))
        assert.strictEqual(store.texts.size, 1)
        keeper.drop(live)
        yield* Effect.sleep(Duration.seconds(1))
        assert.strictEqual(store.texts.size, 0)
      })
    )
  })
})

describe("a tunnel that keeps its session", () => {
  it("works without keeping it while another process has the place, and says so", () => {
    const store = MemoryStore.make()
    const { answer, log } = SmallWorld.run({ host: store.layer }, ({ log, start, visit }) =>
      Effect.gen(function* () {
        const other = yield* Effect.provide(SessionStore, store.layer)
        yield* Option.getOrThrow(other.store).open("client-server:1")
        yield* start("server", serverConfig)
        const client = yield* start("client", clientConfig)
        yield* client.ready
        return { answer: yield* visit, log: log.slice() }
      })
    )
    assert.strictEqual(answer, "hi")
    assert.include(log, "cannot keep the session in client-server:1: it is in use; it is not kept")
  })

  it("is not kept with a client that would not notice another process", () => {
    const store = MemoryStore.make()
    SmallWorld.run({ host: store.layer }, ({ attach, start }) =>
      Effect.gen(function* () {
        yield* start("server", serverConfig)
        const attached = yield* attach("client", "0123456789abcdef")
        yield* Effect.forkScoped(SmallWorld.answer(attached))
        yield* Effect.sleep(Duration.seconds(5))
        assert.strictEqual(store.texts.size, 0)
      })
    )
  })
})
