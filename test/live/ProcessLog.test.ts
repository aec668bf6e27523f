import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Esbuild from "esbuild"
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"

/** A program that logs, with the options of `NodeLog.layer` as its argument. */
const program = `
  import * as Effect from "effect/Effect"
  import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
  import * as NodeLog from "./src/node/process/NodeLog.js"
  const program = Effect.gen(function* () {
    yield* Effect.async((resume) => { process.stdin.once("data", () => resume(Effect.void)) })
    for (let i = 0; i < 3; i++) {
      yield* Effect.logInfo("hello", i)
      yield* Effect.sleep("5 millis")
    }
    process.stdin.destroy()
    console.log("done")
  })
  NodeRuntime.runMain(Effect.provide(program, NodeLog.layer(JSON.parse(process.argv[2]))))
`

/** The program in one file: that starts in a third of the time. */
let file: string
beforeAll(async () => {
  file = Path.join(Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-log-")), "program.cjs")
  const resolveDir = fileURLToPath(new URL("../..", import.meta.url))
  await Esbuild.build({ stdin: { contents: program, resolveDir }, bundle: true, platform: "node", outfile: file })
})
afterAll(() => Fs.rmSync(Path.dirname(file), { recursive: true }))

/** Runs the program, and gives its exit code, its output and its log. */
const run = (options: { readonly env?: Record<string, string>; readonly closed?: boolean; readonly layer?: object }) =>
  Effect.async<{ readonly code: number | null; readonly out: string; readonly err: string }>((resume) => {
    const child = spawn(process.execPath, [file, JSON.stringify(options.layer ?? {})], {
      env: { ...process.env, NO_COLOR: "", NP_LOG_FORMAT: "", ...options.env },
      stdio: "pipe"
    })
    const got = { out: "", err: "" }
    child.stdout.on("data", (data) => (got.out += String(data)))
    child.stderr.on("data", (data) => (got.err += String(data)))
    if (options.closed === true) child.stderr.destroy()
    child.once("close", (code) => resume(Effect.succeed({ code, ...got })))
    child.stdin.end("go")
  })

describe("the process's log", () => {
  it.live("is one plain line for each record on standard error, and Effect's own loggers are silent", () =>
    Effect.gen(function* () {
      const { code, err, out } = yield* run({})
      assert.strictEqual(code, 0)
      assert.strictEqual(out, "done\n")
      assert.match(err, /^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z {2}INFO {2}hello \d\n){3}$/)
    })
  )

  it.live("is JSON with NP_LOG_FORMAT=json", () =>
    Effect.gen(function* () {
      const { err } = yield* run({ env: { NP_LOG_FORMAT: "json" } })
      assert.match(err, /^(\{"time":"[^"]+","level":"info","message":"hello \d"\}\n){3}$/)
    })
  )

  it.live("has the level and the colours of its options", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* run({ layer: { level: "warn" } })).err, "")
      assert.include((yield* run({ layer: { colors: true } })).err, "\u001b[32m INFO\u001b[0m  hello")
    })
  )

  it.live("can lose its reader, and the program continues", () =>
    Effect.gen(function* () {
      const { code, out } = yield* run({ closed: true })
      assert.deepStrictEqual([code, out], [0, "done\n"])
    })
  )
})
