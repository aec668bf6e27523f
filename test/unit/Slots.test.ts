import { assert, describe } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Address from "../../src/core/Address.js"
import * as EventBus from "../../src/core/EventBus.js"
import * as Refusals from "../../src/core/Refusals.js"
import * as Capacity from "../../src/relay/Capacity.js"
import * as Slots from "../../src/relay/Slots.js"
import { it, run } from "../Simulated.js"

const layer = (limit: number, capacity = Infinity) =>
  Slots.layer({ limit }).pipe(
    Layer.provideMerge(Refusals.layer),
    Layer.provide([Capacity.layer(capacity), EventBus.layerNoop])
  )

/** UDP visitors that record which of them the slots evict. */
const makeUdpVisitors = Effect.map(Slots.Slots, (slots) => {
  const evicted: Array<string> = []
  const come = (host: string) =>
    slots.acquireUdp({ visitor: Address.make(host, 9), evict: () => void evicted.push(host) })
  return { evicted, come }
})

const visit = FastCheck.record({ arrives: FastCheck.nat(50), stays: FastCheck.nat(50) })

describe("Slots", () => {
  it.prop(
    "holds at most `limit`, and none once every visit has ended",
    { seed: FastCheck.integer(), limit: FastCheck.integer({ min: 1, max: 5 }), visits: FastCheck.array(visit) },
    ({ limit, seed, visits }) => {
      let held = 0
      let peak = 0
      const program = Effect.gen(function* () {
        const slots = yield* Slots.Slots
        const stay = ({ arrives, stays }: (typeof visits)[number]) =>
          Effect.gen(function* () {
            yield* Effect.sleep(arrives)
            yield* slots.acquire
            peak = Math.max(peak, ++held)
            yield* Effect.addFinalizer(() => Effect.sync(() => held--))
            yield* Effect.sleep(stays)
          }).pipe(
            Effect.scoped,
            Effect.catchTag("SlotsFull", () => Effect.void)
          )
        yield* Effect.forEach(visits, stay, { concurrency: "unbounded" })
        // All are free again: exactly `limit` can be held.
        yield* Effect.scoped(Effect.replicateEffect(slots.acquire, limit))
        return yield* Effect.flip(Effect.scoped(Effect.replicateEffect(slots.acquire, limit + 1)))
      })
      const error = run({ seed, layers: layer(limit) }, () => program)
      assert.deepStrictEqual(error, new Slots.SlotsFull({ limit }))
      assert.isAtMost(peak, limit)
    }
  )

  it.simulated(
    "leaves the last third to TCP, and ends the UDP session that was silent longest",
    { layers: layer(6) },
    () =>
      Effect.gen(function* () {
        const slots = yield* Slots.Slots
        const { come, evicted } = yield* makeUdpVisitors
        const first = yield* come("10.0.1.1")
        for (const host of ["10.0.2.1", "10.0.3.1", "10.0.4.1"]) yield* come(host)
        assert.deepStrictEqual(evicted, [])
        first.touch()
        yield* come("10.0.5.1")
        assert.deepStrictEqual(evicted, ["10.0.2.1"])
        yield* slots.acquire
        yield* slots.acquire
        assert.strictEqual(evicted.length, 1)
        assert.strictEqual((yield* (yield* Refusals.Refusals).counts).evicted, 1)
      })
  )

  it.simulated("ends two-way sessions last, and none of them for a TCP visitor", { layers: layer(3) }, () =>
    Effect.gen(function* () {
      const slots = yield* Slots.Slots
      const { come, evicted } = yield* makeUdpVisitors
      const first = yield* come("10.0.1.1")
      first.confirm()
      yield* come("10.0.2.1")
      yield* come("10.0.3.1")
      yield* slots.acquire
      yield* slots.acquire
      assert.deepStrictEqual(evicted, ["10.0.2.1", "10.0.3.1"])
      assert.strictEqual((yield* Effect.flip(slots.acquire))._tag, "SlotsFull")
      yield* come("10.0.4.1")
      assert.deepStrictEqual(evicted, ["10.0.2.1", "10.0.3.1", "10.0.1.1"])
      // It was evicted, and so does nothing.
      first.touch()
      yield* come("10.0.5.1")
      assert.deepStrictEqual(evicted.slice(3), ["10.0.4.1"])
    })
  )

  it.simulated(
    "answers new visitors among two-way sessions, which forged addresses end few of",
    { layers: layer(120) },
    () =>
      Effect.gen(function* () {
        const { come, evicted } = yield* makeUdpVisitors
        const hosts = Array.from({ length: 80 }, (_, at) => `10.1.${at}.1`)
        for (const host of hosts) (yield* come(host)).confirm()
        for (let at = 0; at < 10; at++) (yield* come(`10.2.${at}.1`)).touch()
        assert.deepStrictEqual(evicted, hosts.slice(0, 10))
        for (let at = 0; at < 200; at++) yield* come(`10.3.${at}.1`)
        assert.strictEqual(evicted.filter((host) => host.startsWith("10.1.")).length, 11)
      })
  )

  it.simulated("refuses UDP when TCP has every slot", { layers: layer(2) }, () =>
    Effect.gen(function* () {
      const { come } = yield* makeUdpVisitors
      yield* Effect.replicateEffect((yield* Slots.Slots).acquire, 2)
      assert.deepStrictEqual(yield* Effect.flip(come("10.0.1.1")), new Slots.SlotsFull({ limit: 2 }))
    })
  )

  for (const [address, hostOf] of [
    ["10.0.1.7", (at: number) => `10.0.1.${at % 250}`],
    ["2001:db8::7", (at: number) => `2001:db8:0:0:${at.toString(16)}::`]
  ] as const) {
    it.simulated(`has a network end its own sessions, and those of no other: ${address}`, { layers: layer(1200) }, () =>
      Effect.gen(function* () {
        const { come, evicted } = yield* makeUdpVisitors
        yield* come("192.0.2.1")
        for (let at = 0; at < 300; at++) yield* come(hostOf(at))
        assert.deepStrictEqual(
          evicted,
          Array.from({ length: 100 }, (_, at) => hostOf(at))
        )
      })
    )
  }

  it.simulated("holds no more than the machine has room for", { layers: layer(Infinity, 3) }, () =>
    Effect.gen(function* () {
      const { acquire } = yield* Slots.Slots
      yield* Effect.replicateEffect(acquire, 3)
      assert.deepStrictEqual(yield* Effect.flip(acquire), new Slots.SlotsFull({ limit: 3 }))
    })
  )

  it.prop(
    "keeps the bounds of UDP, of each network and of all, however visitors come, send and leave",
    {
      limit: FastCheck.integer({ min: 1, max: 400 }),
      steps: FastCheck.array(
        FastCheck.record({
          what: FastCheck.constantFrom(...(["tcp", "now", "udp", "udp", "udp", "touch", "confirm", "leave"] as const)),
          network: FastCheck.nat(3),
          pick: FastCheck.nat(1000)
        }),
        { maxLength: 300, size: "max" }
      )
    },
    ({ limit, steps }) => {
      run({ seed: 1, layers: layer(limit) }, () =>
        Effect.gen(function* () {
          const slots = yield* Slots.Slots
          const share = Slots.shares(limit)
          let tcp = 0
          const sessions = new Map<number, { slot: Slots.UdpSlot; scope: Scope.CloseableScope; network: number }>()
          for (const [id, { network, pick, what }] of steps.entries()) {
            const [picked, session] = [...sessions][pick % Math.max(1, sessions.size)] ?? []
            if (what === "tcp") tcp += (yield* Effect.either(slots.acquire))._tag === "Right" ? 1 : 0
            else if (what === "now") {
              const isFull = sessions.size + tcp >= limit
              const release = slots.acquireNow()
              assert.strictEqual(release === undefined, isFull)
              // It counts until it is released.
              if (release !== undefined && pick % 2 === 0) release()
              else if (release !== undefined) tcp++
            } else if (what === "udp") {
              const scope = yield* Scope.make()
              const visitor = Address.make(`10.0.${network}.1`, 1 + id)
              const held = yield* Effect.either(
                Scope.extend(slots.acquireUdp({ visitor, evict: () => void sessions.delete(id) }), scope)
              )
              if (held._tag === "Right") sessions.set(id, { slot: held.right, scope, network })
              else assert.strictEqual(tcp, limit)
            } else if (picked !== undefined && session !== undefined) {
              if (what !== "leave") session.slot[what]()
              else {
                sessions.delete(picked)
                yield* Scope.close(session.scope, Exit.void)
              }
            }
            assert.isAtMost(sessions.size, share.udp)
            assert.isAtMost(sessions.size + tcp, limit)
            for (let at = 0; at < 4; at++) {
              const ofNetwork = [...sessions.values()].filter(({ network }) => network === at)
              assert.isAtMost(ofNetwork.length, share.prefix)
            }
          }
        })
      )
    }
  )
})
