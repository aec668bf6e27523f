import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as RegularFile from "../../src/core/RegularFile.js"
import * as NodeRegularFile from "../../src/node/file/NodeRegularFile.js"

const inFolder = <A, E>(use: (at: (name: string) => string) => Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.acquireUseRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-file-"))),
    (folder) => use((name) => Path.join(folder, name)),
    (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true }))
  )

/** Why the file is refused. */
const refusal = (file: string, options?: RegularFile.Options) =>
  Effect.map(Effect.flip(NodeRegularFile.read(file, options)), ({ detail, reason }) => [reason, detail] as const)

describe("RegularFile", () => {
  it.live("reads a file, also through a symbolic link, with its permissions", () =>
    inFolder((at) =>
      Effect.gen(function* () {
        Fs.writeFileSync(at("key"), "\uFEFFdüne\n", { mode: 0o640 })
        Fs.chmodSync(at("key"), 0o640)
        Fs.symlinkSync("key", at("link"))
        for (const name of ["key", "link"]) {
          const content = yield* NodeRegularFile.read(at(name))
          assert.strictEqual(content.mode, 0o640)
          assert.strictEqual(content.bytes.length, 9)
          assert.strictEqual(RegularFile.text(content), "düne\n")
        }
      })
    )
  )

  it.live("refuses pipes, folders, devices and what is missing, without waiting for a writer", () =>
    inFolder((at) =>
      Effect.gen(function* () {
        execFileSync("mkfifo", [at("pipe")])
        Fs.symlinkSync("pipe", at("link"))
        Fs.symlinkSync("loop", at("loop"))
        assert.deepStrictEqual(yield* refusal(at("pipe")), ["NotRegular", "it is a pipe"])
        assert.deepStrictEqual(yield* refusal(at("link")), ["NotRegular", "it is a pipe"])
        assert.deepStrictEqual(yield* refusal(at(".")), ["NotRegular", "it is a folder"])
        assert.deepStrictEqual(yield* refusal("/dev/zero"), ["NotRegular", "it is a device"])
        assert.deepStrictEqual(yield* refusal(at("none")), ["NotFound", "no such file"])
        assert.deepStrictEqual(yield* refusal(at("pipe/none")), ["NotFound", "no such file"])
        assert.deepStrictEqual(yield* refusal(at("loop")), ["Failed", "too many symbolic links"])
        assert.deepStrictEqual((yield* refusal("a\0b"))[0], "Failed")
      })
    )
  )

  it.live("refuses a file larger than the limit, and one in /proc that has no size", () =>
    inFolder((at) =>
      Effect.gen(function* () {
        Fs.writeFileSync(at("large"), "")
        Fs.truncateSync(at("large"), 1_048_577)
        assert.deepStrictEqual(yield* refusal(at("large")), ["TooLarge", "it has more than 1048576 bytes"])
        Fs.truncateSync(at("large"), 1_048_576)
        assert.strictEqual((yield* NodeRegularFile.read(at("large"))).bytes.length, 1_048_576)
        assert.strictEqual((yield* refusal(at("large"), { limit: 1_048_575 }))[0], "TooLarge")
        if (process.platform === "linux") {
          assert.deepStrictEqual(yield* refusal("/proc/self/maps", { limit: 10 }), [
            "TooLarge",
            "it has more than 10 bytes"
          ])
        }
      })
    )
  )

  it.live("fails at the deadline, and then reads others and the same file", () =>
    inFolder((at) =>
      Effect.gen(function* () {
        Fs.writeFileSync(at("a"), "a")
        Fs.writeFileSync(at("b"), "b")
        // A read may be faster than the timer.
        const read = NodeRegularFile.read(at("a"), { deadline: Duration.zero })
        const { reason } = yield* Effect.flip(Effect.repeatN(read, 999))
        assert.strictEqual(reason, "TimedOut")
        const all = yield* Effect.forEach(
          Array.from({ length: 8 }, (_, index) => (index % 2 === 0 ? "a" : "b")),
          (name) => Effect.map(NodeRegularFile.read(at(name), { deadline: Duration.hours(1) }), RegularFile.text),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(all.join(""), "ab".repeat(4))
      })
    )
  )

  it.live("leaves no descriptor open, however a read ends", () =>
    inFolder((at) =>
      Effect.gen(function* () {
        if (process.platform !== "linux") return
        Fs.writeFileSync(at("large"), Buffer.alloc(2_000_000))
        Fs.writeFileSync(at("small"), "x")
        const opened = () => Fs.readdirSync("/proc/self/fd").filter((name) => linkOf(name).startsWith(at(""))).length
        const read = (name: string) => Effect.either(NodeRegularFile.read(at(name), { deadline: Duration.millis(1) }))
        yield* Effect.forEach(["large", "small", "large", "small"], read, { concurrency: "unbounded" })
        // These wait until the reads above have closed their files.
        yield* Effect.either(NodeRegularFile.read(at("large")))
        yield* NodeRegularFile.read(at("small"))
        assert.strictEqual(opened(), 0)
      })
    )
  )
})

const linkOf = (name: string): string => {
  try {
    return Fs.readlinkSync(`/proc/self/fd/${name}`)
  } catch {
    return ""
  }
}
