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
  all: [usual, ...others].join(" ")
})

/** What it sets on a connection, if anything. */
const made = (wanted: string, has: Congestion.Choices) => {
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
  it("auto is bbr from when the path loses until it does not, and sets nothing before", () => {
    const congestion = made("auto", choices("cubic", "bbr"))
    assert.isUndefined(congestion.set())
    assert.isUndefined(congestion.learn([clean]))
    assert.include(congestion.learn([losing]) ?? "", "cc: bbr from now on, since 1.00 % was sent again")
    assert.strictEqual(congestion.set(), "bbr")
    assert.isUndefined(congestion.learn([losing]))
    assert.include(congestion.learn([clean]) ?? "", "cc: cubic from now on")
    assert.strictEqual(congestion.set(), "cubic")
  })

  it.prop(
    "auto leaves a path alone that is short, or of which little was seen",
    [FastCheck.array(path), FastCheck.boolean()],
    ([paths, isShort]) => {
      const congestion = made("auto", choices("cubic", "bbr"))
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
    "what is set is what the system has, whatever the path does",
    [FastCheck.constantFrom("auto", "bbr", "cubic", "vegas"), FastCheck.array(path), FastCheck.boolean()],
    ([wanted, paths, hasBbr]) => {
      const congestion = made(wanted, choices("cubic", ...(hasBbr ? ["bbr"] : [])))
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

  it.effect.runIf(process.platform === "linux")("names what this system has, and the kernel obeys", () =>
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
