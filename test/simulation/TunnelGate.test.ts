import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Address from "../../src/core/Address.js"
import * as EventBus from "../../src/core/EventBus.js"
import * as Refusals from "../../src/core/Refusals.js"
import * as TunnelGate from "../../src/tunnel/TunnelGate.js"
import { utf8 } from "../Bytes.js"
import { runs } from "../Runs.js"
import * as Simulated from "../Simulated.js"

const simulated = <A, E>(seed: number, program: Effect.Effect<A, E, Refusals.Refusals | Scope.Scope>): A =>
  Simulated.run({ seed, layers: Layer.provide(Refusals.layer, EventBus.layerNoop) }, () => program)

const [home, other] = [Address.make("192.0.2.1", 1), Address.make("2001:db8::1", 1)]
/** Many addresses, each of which comes once. */
const unknownPeer = (index: number) => Address.make(`127.${1 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`, 1)

/** How many of so many are admitted, with this time between them; each of them fails at once. */
const failing = (gate: TunnelGate.TunnelGate, peer: (index: number) => Address.Address, count: number, millis = 0) =>
  Effect.gen(function* () {
    let admitted = 0
    for (let index = 0; index < count; index++) {
      if (millis > 0) yield* Effect.sleep(Duration.millis(millis))
      if (!gate.admit(peer(index))) continue
      admitted++
      gate.enter(peer(index)).leave("failed")
    }
    return admitted
  })

const authenticate = (gate: TunnelGate.TunnelGate, peer: Address.Address): boolean => {
  if (!gate.admit(peer)) return false
  gate.enter(peer).leave("authenticated")
  return true
}

describe("TunnelGate", () => {
  it("admits a peer of a quiet address while one address, loopback or not, fails without end", () => {
    for (const noisy of [home, Address.make("127.0.0.1", 1)]) {
      const [admitted, quiet] = simulated(
        1,
        Effect.gen(function* () {
          const gate = yield* TunnelGate.make()
          const admitted = yield* failing(gate, () => noisy, 1000, 10)
          return [admitted, gate.admit(other)] as const
        })
      )
      // 32 at once, and 8 a second for ten seconds.
      assert.approximately(admitted, 112, 2)
      assert.isTrue(quiet)
    }
  })

  it("resets garbage by its first bytes, which takes no chance from others, and counts it", () => {
    const [admitted, dropped, refused] = simulated(
      1,
      Effect.gen(function* () {
        const gate = yield* TunnelGate.make()
        let admitted = 0
        for (let index = 0; index < 5000; index++) {
          if (!gate.admit(unknownPeer(index))) continue
          admitted++
          assert.isFalse(gate.screen(utf8("GET / HTTP/1.1"), unknownPeer(index)))
        }
        // An address that does so again and again has failed nevertheless.
        let again = 0
        while (gate.admit(home) && !gate.screen(utf8("SSH-2.0"), home)) again++
        assert.strictEqual(again, 32)
        yield* Effect.sleep("2 seconds")
        const counts = yield* (yield* Refusals.Refusals).counts
        return [admitted, counts["dropped"] ?? 0, counts["handshake"] ?? 0] as const
      })
    )
    assert.deepStrictEqual([admitted, dropped, refused], [5000, 1, 5032])
  })

  it("counts an IPv6 /64 as one address", () => {
    const admitted = simulated(
      1,
      Effect.flatMap(TunnelGate.make(), (gate) =>
        failing(gate, (index) => Address.make(`2001:db8::${index.toString(16)}`, 1), 1000)
      )
    )
    assert.strictEqual(admitted, 32)
  })

  it.prop(
    "gives a newcomer a good chance in a flood from as many addresses, and its CPU time has a bound",
    [FastCheck.integer(), FastCheck.integer({ min: 1500, max: 10_000 })],
    ([seed, perSecond]) => {
      const admitted = simulated(
        seed,
        Effect.flatMap(TunnelGate.make(), (gate) => failing(gate, unknownPeer, 2 * perSecond, 1000 / perSecond))
      )
      // Two seconds of 1000 each, and what was left of the bucket.
      assert.isAtLeast(admitted, 2000)
      assert.isAtMost(admitted, 3000)
    },
    { fastCheck: { numRuns: runs(5, 20) } }
  )

  it("admits every peer of an address that has authenticated, in a flood", () => {
    const [first, all] = simulated(
      1,
      Effect.gen(function* () {
        const gate = yield* TunnelGate.make()
        const first = authenticate(gate, home)
        let admitted = 0
        for (let second = 0; second < 20; second++) {
          yield* failing(gate, (index) => unknownPeer(second * 5000 + index), 5000)
          for (let index = 0; index < 500; index++) if (authenticate(gate, home)) admitted++
          yield* Effect.sleep(Duration.seconds(1))
        }
        return [first, admitted] as const
      })
    )
    assert.deepStrictEqual([first, all], [true, 10_000])
  })

  it("admits a pool of 1024 at once, and hundreds of clients behind one address", () => {
    const [pool, clients] = simulated(
      1,
      Effect.gen(function* () {
        const gate = yield* TunnelGate.make()
        authenticate(gate, home)
        const joining = Array.from({ length: 1024 }, () => gate.admit(home) && gate.enter(home))
        for (const peer of joining) if (peer !== false) peer.leave("authenticated")
        const clients = Array.from({ length: 500 }, () => authenticate(gate, other))
        return [joining.filter((peer) => peer !== false).length, clients.filter(Boolean).length] as const
      })
    )
    assert.deepStrictEqual([pool, clients], [1024, 500])
  })

  it("admits a pool of any size at once", () => {
    const admitted = simulated(
      1,
      Effect.gen(function* () {
        const gate = yield* TunnelGate.make({ pool: 5000 })
        authenticate(gate, home)
        return Array.from({ length: 5000 }, () => gate.admit(home)).filter(Boolean).length
      })
    )
    assert.strictEqual(admitted, 5000)
  })

  it("limits the failures of a known address, which stays known", () => {
    const [admitted, after] = simulated(
      1,
      Effect.gen(function* () {
        const gate = yield* TunnelGate.make()
        authenticate(gate, home)
        const admitted = yield* failing(gate, () => home, 20_000, 0.5)
        yield* Effect.sleep(Duration.seconds(5))
        return [admitted, authenticate(gate, home)] as const
      })
    )
    // Its own bucket, 100 a second, and what unknown addresses may fail together, for ten seconds.
    assert.isAtMost(admitted, 1024 + 1000 + 1000 + 10_000)
    assert.isTrue(after)
  })

  it("counts every one that it drops", () => {
    const counts = simulated(
      1,
      Effect.gen(function* () {
        const refusals = yield* Refusals.Refusals
        const gate = yield* TunnelGate.make()
        const admitted = yield* failing(gate, unknownPeer, 5000, 0.5)
        yield* Effect.sleep(Duration.seconds(2))
        return [(yield* refusals.counts).dropped, 5000 - admitted]
      })
    )
    assert.strictEqual(counts[0], counts[1])
    assert.isAbove(counts[1] ?? 0, 0)
  })

  it.prop(
    "never has more unauthenticated peers than the limit, however they come and go",
    [
      FastCheck.integer(),
      FastCheck.integer({ min: 1, max: 40 }),
      FastCheck.array(FastCheck.tuple(FastCheck.nat(8), FastCheck.boolean()), { maxLength: 300 })
    ],
    ([seed, limit, steps]) => {
      simulated(
        seed,
        Effect.gen(function* () {
          const gate = yield* TunnelGate.make({ limit })
          const waiting: Array<TunnelGate.Peer> = []
          for (const [host, comes] of steps) {
            if (!comes) waiting.shift()?.leave("failed")
            else if (gate.admit(unknownPeer(host))) waiting.push(gate.enter(unknownPeer(host)))
            assert.isAtMost(waiting.length, Math.max(1, limit))
          }
        })
      )
    },
    { fastCheck: { numRuns: runs(50, 200) } }
  )
})
