import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Congestion from "../../src/node/kernel/Congestion.js"
import { kernel } from "../../src/node/kernel/Kernel.js"
import { options } from "../../src/node/kernel/ffi/Sockets.js"
import * as TcpInfo from "../../src/node/kernel/TcpInfo.js"
import type { Path } from "../../src/relay/Relay.js"

const choices = (usual: string, ...others: ReadonlyArray<string>): Congestion.Choices => ({
  usual,
  allows: (name) => name === usual || others.includes(name),
  available: [usual, ...others].join(" ")
})

/** With `set`: what is set on a connection, if anything. */
const make = (wanted: string, has: Congestion.Choices) => {
  let name: string | undefined
  const { apply, ...congestion } = Congestion.make(wanted, has, (_, to) => (name = to))
  return { ...congestion, set: () => ((name = undefined), apply(7), name) }
}

const path = FastCheck.record({
  rttMillis: FastCheck.float({ min: 0, max: 500, noNaN: true }),
  segments: FastCheck.integer({ min: 1, max: 20_000 }),
  share: FastCheck.constantFrom(0, 0.0001, 0.0005, 0.002, 0.1)
}).map(({ rttMillis, segments, share }): Path => ({
  rttMillis,
  segments,
  retransmitted: Math.floor(segments * share)
}))
const losing: Path = { rttMillis: 40, segments: 10_000, retransmitted: 100 }
const clean: Path = { rttMillis: 40, segments: 10_000, retransmitted: 0 }

describe("Congestion", () => {
  it("auto sets nothing at first, bbr while the path loses packets, and cubic again after that", () => {
    const congestion = make("auto", choices("cubic", "bbr"))
    assert.isUndefined(congestion.set())
    assert.isUndefined(congestion.learn([clean]))
    assert.include(
      congestion.learn([losing]) ?? "",
      "cc: connections now use bbr: 1.00 % of segments were retransmitted"
    )
    assert.strictEqual(congestion.set(), "bbr")
    assert.isUndefined(congestion.learn([losing]))
    assert.include(congestion.learn([clean]) ?? "", "cc: connections now use cubic")
    assert.strictEqual(congestion.set(), "cubic")
  })

  it.prop(
    "auto changes nothing for a short round trip, or after few segments",
    [FastCheck.array(path), FastCheck.boolean()],
    ([paths, isShort]) => {
      const congestion = make("auto", choices("cubic", "bbr"))
      for (const one of paths) {
        assert.isUndefined(
          congestion.learn([isShort ? { ...one, rttMillis: 1 } : { ...one, segments: 1, retransmitted: 1 }].slice(0, 4))
        )
        if (!isShort) break
      }
      assert.isUndefined(congestion.set())
    }
  )

  it.prop(
    "only what the system allows is set, whatever the path does",
    [FastCheck.constantFrom("auto", "bbr", "cubic", "vegas"), FastCheck.array(path), FastCheck.boolean()],
    ([wanted, paths, hasBbr]) => {
      const congestion = make(wanted, choices("cubic", ...(hasBbr ? ["bbr"] : [])))
      for (const one of paths) {
        congestion.learn([one])
        const name = congestion.set() ?? "cubic"
        assert.include(hasBbr ? ["cubic", "bbr"] : ["cubic"], name)
        if (wanted !== "auto") assert.strictEqual(name, wanted === "bbr" && hasBbr ? "bbr" : "cubic")
      }
      const isThere = wanted !== "vegas" && (wanted !== "bbr" || hasBbr)
      assert.strictEqual(congestion.problem === undefined, isThere)
    }
  )

  it.effect.runIf(process.platform === "linux")("finds what this system has, and sets it on a socket", () =>
    Effect.gen(function* () {
      const found = yield* Effect.orDie(kernel)
      const { libc, sockets } = found
      const has = Congestion.choices(found)
      assert.isTrue(has.allows(has.usual))
      assert.isFalse(has.allows("nonesuch"))
      const fd = sockets.open(4)
      const { apply, problem } = Congestion.make("reno", has, (fd, name) =>
        sockets.setText(fd, options.congestion, name)
      )
      apply(fd)
      const name = new Uint8Array(16)
      assert.isAtLeast(sockets.get(fd, options.congestion, name), 0)
      const path = TcpInfo.read(sockets, fd)
      libc.close(fd)
      assert.isUndefined(problem)
      assert.strictEqual(Buffer.from(name).toString("latin1").replaceAll("\0", ""), "reno")
      assert.deepStrictEqual(path, { rttMillis: path?.rttMillis ?? -1, segments: 0, retransmitted: 0 })
      assert.isUndefined(TcpInfo.read(sockets, 1 << 20))
    })
  )
})
