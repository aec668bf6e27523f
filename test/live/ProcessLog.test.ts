import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"

/** Runs a program that logs, and gives its exit code, its output and its log. */
const run = (options: { readonly env?: Record<string, string>; readonly closed?: boolean; readonly layer?: string }) =>
  Effect.async<{ readonly code: number | null; readonly out: string; readonly err: string }>((resume) => {
    const program = `
      import * as Effect from "effect/Effect"
      import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
      import * as NodeLog from "./dist/node/process/NodeLog.js"
      const program = Effect.gen(function* () {
        yield* Effect.async((resume) => { process.stdin.once("data", () => resume(Effect.void)) })
        for (let i = 0; i < 3; i++) {
          yield* Effect.logInfo("hello", i)
          yield* Effect.sleep("5 millis")
        }
        process.stdin.destroy()
        console.log("done")
      })
      NodeRuntime.runMain(Effect.provide(program, NodeLog.layer(${options.layer ?? ""})))
    `
    const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
      cwd: fileURLToPath(new URL("../..", import.meta.url)),
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
      assert.strictEqual((yield* run({ layer: `{ level: "warn" }` })).err, "")
      assert.include((yield* run({ layer: `{ colors: true }` })).err, "\u001b[32m INFO\u001b[0m  hello")
    })
  )

  it.live("can lose its reader, and the program continues", () =>
    Effect.gen(function* () {
      const { code, out } = yield* run({ closed: true })
      assert.deepStrictEqual([code, out], [0, "done\n"])
    })
  )
})
